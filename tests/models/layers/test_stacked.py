"""What a card computes in one product equals what the modules compute one by one, gradients and statistics too."""

from typing import Any

import pytest
import torch

from contract.schema import TaskSpec
from models.heads.towers import Towers
from models.layers.mlp import GroupedLinear
from models.layers.stacked import can_stack
from tests.models.small import small_config

TASKS = tuple(TaskSpec(name=name, kind="binary") for name in ("a", "b", "c"))


def _made(build: Any) -> Any:
    torch.manual_seed(0)
    return build()


def _gradients(module: torch.nn.Module, answer: torch.Tensor) -> list[torch.Tensor]:
    answer.square().sum().backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_experts_of_one_layer_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(7, 15)
    plain, stacked = (_made(lambda: GroupedLinear(5, 4, 3)) for _ in range(2))
    expected = plain(x)
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"}))
    found = stacked(x)
    torch.testing.assert_close(found, expected)
    for a, b in zip(_gradients(stacked, found), _gradients(plain, expected), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "changes",
    [{"norm": "batch"}, {"norm": "none", "tower_widths": (8, 8), "residual": True}, {"tower_widths": ()}],
)
@pytest.mark.parametrize("mixtures_are", ["one", "each its own"])
def test_all_towers_are_a_product_a_layer(
    changes: dict[str, Any], mixtures_are: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(dropout=0.0, **changes)
    plain, stacked = (_made(lambda: Towers(6, TASKS, config)).train() for _ in range(2))
    one = torch.randn(9, 6)
    mixtures = [one] * 3 if mixtures_are == "one" else [torch.randn(9, 6) for _ in TASKS]
    expected = plain(mixtures).outputs_BT
    monkeypatch.setattr("models.layers.batched_product.DEVICES", frozenset({"cpu"}))
    found = stacked(mixtures).outputs_BT
    torch.testing.assert_close(found, expected)
    for a, b in zip(_gradients(stacked, found), _gradients(plain, expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    # Checkpoints keep their names, and batch norms their own running statistics.
    for (name, a), (other, b) in zip(stacked.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b)


def test_layer_norms_are_left_to_the_modules() -> None:
    towers = Towers(6, TASKS, small_config(norm="layer"))
    assert not can_stack([tower.hidden for tower in towers.typed_towers])
    assert can_stack([tower.hidden for tower in Towers(6, TASKS, small_config()).typed_towers])
