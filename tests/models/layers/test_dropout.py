"""Dropout with a byte of randomness an element."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.layers.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(rate)(torch.ones(1000, 999))
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=5e-3)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=5e-3)
    assert float((dropped == 0).float().mean(dim=0).std()) < 0.03


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.floats(0.0, 1.0, exclude_max=True))
def test_any_shape_and_rate_come_back_finite(shape: list[int], rate: float) -> None:
    x = torch.ones(shape, requires_grad=True)
    dropped = Dropout(rate)(x)
    dropped.sum().backward()
    assert dropped.shape == x.shape
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())
    assert torch.isfinite(dropped).all()


def test_it_keeps_the_type_and_does_nothing_in_evaluation() -> None:
    x = torch.ones(7, 3, dtype=torch.bfloat16)
    assert Dropout(0.5)(x).dtype == torch.bfloat16
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_same_seed_drops_the_same() -> None:
    x = torch.ones(100)
    torch.manual_seed(3)
    first = Dropout(0.3)(x)
    torch.manual_seed(3)
    assert torch.equal(Dropout(0.3)(x), first)
