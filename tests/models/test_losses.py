"""The loss: masks, weights, scales and penalties."""

import math

import pytest
import torch

from contract.errors import ConfigError
from models.losses import RankingLoss
from models.ranker_tensors import RankerOutput
from tests.models.small import TASKS

NOTHING = torch.zeros(0)


def output(logits: list[list[float]], **penalties: float) -> RankerOutput:
    return RankerOutput(torch.tensor(logits), {name: torch.tensor(v) for name, v in penalties.items()}, (), NOTHING)


def test_each_task_is_the_weighted_mean_over_its_rows() -> None:
    logits, labels = [[0.0, 1.0], [2.0, 0.0]], torch.tensor([[1.0, 3.5], [0.0, 4.6]])
    weights = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    losses = RankingLoss(TASKS)(output(logits), labels, weights)
    entropy = (math.log(2) + 3 * math.log1p(math.exp(2))) / 4
    torch.testing.assert_close(losses.tasks_T, torch.tensor([entropy, (1.0 + 1.0) / 2]))


def test_masked_entries_count_for_nothing_even_if_not_a_number() -> None:
    labels = torch.tensor([[1.0, float("nan")], [float("nan"), 3.5]])
    logits = torch.tensor([[0.5, 9.0], [7.0, 0.25]], requires_grad=True)
    losses = RankingLoss(TASKS)(RankerOutput(logits, {}, (), NOTHING), labels, torch.eye(2))
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad[1, 0] == 0


def test_a_task_without_rows_has_loss_zero() -> None:
    weights = torch.tensor([[1.0, 0.0]])
    losses = RankingLoss(TASKS)(output([[0.0, 5.0]]), torch.tensor([[1.0, 1.0]]), weights)
    assert losses.tasks_T[1] == 0


def test_task_weights_and_penalties_enter_the_total() -> None:
    labels, weights = torch.tensor([[1.0, 3.5]]), torch.ones(1, 2)
    losses = RankingLoss(TASKS, {"rating": 2.0})(output([[0.0, 1.0]], entropy=0.5), labels, weights)
    torch.testing.assert_close(losses.total, torch.tensor(math.log(2) + 2.0 * 1.0 + 0.5))


def test_a_weight_for_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task_weights names share; the tasks are: like, rating"):
        RankingLoss(TASKS, {"share": 1.0})
