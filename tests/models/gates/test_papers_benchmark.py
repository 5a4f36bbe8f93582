"""The benchmark of DSelect-k's synthetic tasks: its world and its measures."""

import numpy as np
import pytest
import torch

from benchmarks.papers import CORRELATION, GATES, generate, jaccards, trial


def test_tasks_of_a_group_are_alike_and_others_are_not() -> None:
    data = generate(16, seed=0)
    correlation = np.corrcoef(data.y.numpy().T)
    same = np.equal.outer(data.groups, data.groups) & ~np.eye(16, dtype=bool)
    assert correlation[same].mean() > CORRELATION / 2
    assert abs(correlation[~same & ~np.eye(16, dtype=bool)]).mean() < correlation[same].mean() / 2


def test_the_jaccard_index_tells_related_from_unrelated() -> None:
    selected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], dtype=torch.bool)
    related, unrelated = jaccards(selected, [0, 0, 1, 1])
    assert related == pytest.approx((1.0 + 1 / 3) / 2)
    assert unrelated == pytest.approx((0 + 1 / 3 + 0 + 1 / 3) / 4)


@pytest.mark.slow
@pytest.mark.parametrize("gate", GATES)
def test_every_gate_learns_something(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.papers.STEPS", 60)
    assert trial(gate, 8, 3).test < 0.95
