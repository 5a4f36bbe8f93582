"""The loss: masks, weights, scales and penalties."""

import math

import pytest
import torch

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.losses import RankingLoss, base_entropy
from models.ranker_tensors import RankerOutput
from tests.models.small import TASKS

NOTHING = torch.zeros(0)


def output(logits: list[list[float]], **penalties: float) -> RankerOutput:
    return RankerOutput(torch.tensor(logits), {name: torch.tensor(v) for name, v in penalties.items()}, (), NOTHING)


def test_each_task_is_the_weighted_mean_over_its_rows() -> None:
    logits, labels = [[0.0, 1.0], [2.0, 0.0]], torch.tensor([[1.0, 3.5], [0.0, 4.6]])
    weights = torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    losses = RankingLoss(TASKS, scale="none")(output(logits), labels, weights)
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
    losses = RankingLoss(TASKS, {"rating": 2.0}, scale="none")(output([[0.0, 1.0]], entropy=0.5), labels, weights)
    torch.testing.assert_close(losses.total, torch.tensor(math.log(2) + 2.0 * 1.0 + 0.5))


@pytest.mark.parametrize("rate", [0.5, 0.02, 0.001])
def test_a_model_that_answers_the_base_rate_loses_one_in_every_task(rate: float) -> None:
    tasks = (
        TaskSpec(name="rare", kind="binary", base_rate=rate),
        TaskSpec(name="stars", kind="regression", spread=2.0),
    )
    labels = torch.zeros(2000, 2)
    labels[: round(2000 * rate), 0] = 1.0
    labels[:, 1] = torch.tensor([-2.0, 2.0]).repeat(1000)
    logits = torch.tensor([[math.log(rate / (1 - rate)), 0.0]]).expand(2000, 2)
    losses = RankingLoss(tasks)(RankerOutput(logits, {}, (), NOTHING), labels, torch.ones(2000, 2))
    torch.testing.assert_close(losses.tasks_T, torch.ones(2), rtol=1e-4, atol=1e-4)


def test_a_task_of_unknown_rate_keeps_its_loss_and_one_without_positives_does_not_explode() -> None:
    assert base_entropy(TaskSpec(name="like", kind="binary", base_rate=0.0)) == 1.0
    assert base_entropy(TaskSpec(name="like", kind="binary", base_rate=1e-9)) == pytest.approx(1e-3)


def test_a_weight_for_an_unknown_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task_weights names share; the tasks are: like, rating"):
        RankingLoss(TASKS, {"share": 1.0})
