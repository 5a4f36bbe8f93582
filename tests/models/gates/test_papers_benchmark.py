"""The benchmark of DSelect-k's synthetic tasks: its world and its measures."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.mixtures import Mixtures, Sizes, TrialAdam
from benchmarks.papers import CORRELATION, EXPERTS, GATES, Trial, best, generate, jaccards, redrawn, table, trials
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
    assert trials(gate, 8, [3])[0].test < 0.95


@pytest.mark.parametrize("gate", GATES)
def test_tasks_gates_in_one_answer_as_a_gate_for_each_task_does(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alone: list[Gate] = []

    def build(*given: Any) -> Gate:
        made = build_one(*given)
        alone.append(copy.deepcopy(made))
        return made

    monkeypatch.setattr("benchmarks.task_gates.build_gate", build)
    together = TaskGates(GATES[gate], EXPERTS, 3, [0])
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


def test_trials_side_by_side_are_as_each_by_itself_and_a_weight_of_entropy_is_a_scale_of_the_error() -> None:
    sizes, seeds = Sizes(5, 4, 3, 6), [3, 8]
    gate = {"name": "dselect_k", "k": 2, "entropy": 1.0}
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 2, 9, 5, generator=draw), torch.randn(40, 2, 9, 6, generator=draw)
    rates, entropies = torch.tensor([0.01, 0.002]), torch.tensor([0.1, 0.5])
    together = Mixtures(gate, sizes, seeds)
    optimiser = TrialAdam(together.parameters(), rates, 40)
    for step in range(40):
        answers, penalty, _ = together(x[step])
        optimiser.step(((answers - y[step]).square().mean((1, 2)) / entropies).sum() + 2 * penalty)
    for place, seed in enumerate(seeds):
        alone = Mixtures({**gate, "entropy": float(entropies[place])}, sizes, [seed])
        adam = torch.optim.Adam(alone.parameters(), lr=float(rates[place]))
        cycle = torch.optim.lr_scheduler.OneCycleLR(adam, float(rates[place]), total_steps=40)
        for step in range(40):
            answers, penalty, _ = alone(x[step, place : place + 1])
            adam.zero_grad()
            ((answers[0] - y[step, place]).square().mean() + penalty).backward()
            adam.step()
            cycle.step()
        torch.testing.assert_close(together(x[0])[0][place], alone(x[0, place : place + 1])[0][0], rtol=1e-3, atol=1e-4)
