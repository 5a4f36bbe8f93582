"""The benchmark of DSelect-k's synthetic tasks: its world and its measures."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.papers import CORRELATION, EXPERTS, GATES, Trial, best, generate, jaccards, redrawn, table, trial
from benchmarks.task_gates import TaskGates
from models.gates import Gate
from models.gates import build_gate as build_one


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


@pytest.mark.parametrize("gate", GATES)
def test_tasks_gates_in_one_answer_as_a_gate_for_each_task_does(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[Gate] = []

    def build(*given: Any) -> Gate:
        made = build_one(*given)
        alone.append(copy.deepcopy(made))
        return made

    monkeypatch.setattr("benchmarks.task_gates.build_gate", build)
    together = TaskGates(GATES[gate], EXPERTS, 3)
    for training, step in ((True, 10), (False, 10), (True, 500), (False, 500)):
        together.step(step)
        together.train(training)
        for each in alone:
            each.step(step)
            each.train(training)
        torch.manual_seed(0)
        routing = together()
        torch.manual_seed(0)
        rows = [each(None) for each in alone]
        if gate.startswith("noisy") and training:
            continue
        torch.testing.assert_close(routing.weights_BE, torch.cat([row.weights_BE for row in rows]))
        assert routing.selected_BE.equal(torch.cat([row.selected_BE for row in rows]))
        for name, penalty in routing.penalties.items():
            torch.testing.assert_close(penalty, torch.stack([row.penalties[name] for row in rows]).mean())


def test_the_best_trials_are_chosen_by_validation_and_their_interval_by_drawing_trials_anew() -> None:
    trials = [Trial(0.1 * n, 1.0 - 0.1 * n, 4.0, 0.5, 0.1) for n in range(5)]
    assert best(trials) == [trials[0]]
    low, high = redrawn(trials)
    assert low < high == pytest.approx(1.0)
    lines = table({"softmax": trials, "top_k": [replace(each, test=each.test - 0.1) for each in trials]}).splitlines()
    assert lines[2].startswith("| `softmax` | 1.0000")
    assert "**-0.1000 (-0.1000 .. -0.1000)**" in lines[3]
