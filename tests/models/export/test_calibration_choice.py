"""Which calibration a task gets by default."""

import numpy as np
import pytest

from models.export.calibration_choice import choose_method


@pytest.mark.parametrize(("slope", "bend", "expected"), [(1.0, 0.0, None), (0.5, 0.0, "platt"), (1.0, 1.5, "isotonic")])
def test_the_method_is_what_the_labels_ask_for(slope: float, bend: float, expected: str | None) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(scale=1.5, size=20_000)
    true = slope * logits + bend * np.maximum(logits, 0.0) ** 2 - bend * np.maximum(-logits, 0.0)
    labels = (rng.random(logits.size) < 1.0 / (1.0 + np.exp(-true))).astype(np.float32)
    user = rng.integers(0, 2000, logits.size).astype(np.uint64)
    ones = np.ones(logits.size, np.float32)
    assert choose_method(logits.astype(np.float32), labels, ones, user) == expected


def test_labels_of_one_class_need_none() -> None:
    logits, zeros, ones = np.linspace(-1, 1, 100, dtype=np.float32), np.zeros(100, np.float32), np.ones(100, np.float32)
    assert choose_method(logits, zeros, ones, np.arange(100, dtype=np.uint64)) is None
    assert choose_method(logits, zeros, zeros, np.arange(100, dtype=np.uint64)) is None
