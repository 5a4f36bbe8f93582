"""Losses by name: each against its equation, and terms within a user against loops over pairs."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.losses import RankingLoss, WithinUserConfig
from models.losses.pointwise import CrossEntropyConfig, FocalConfig, HuberConfig, Pointwise, QuantileConfig
from models.ranker_tensors import RankerOutput
from tests.models.small import TASKS

RARE = TaskSpec(name="buy", kind="binary", base_rate=0.02)


@pytest.mark.parametrize(
    "rule", [CrossEntropyConfig(), CrossEntropyConfig(positive_weight=9.0), FocalConfig(gamma=1.5)]
)
def test_the_unit_is_what_the_base_rate_loses(rule: Pointwise) -> None:
    labels = torch.zeros(100)
    labels[:2] = 1.0
    answer = rule.best_constant(0.02)
    logits = torch.full((100,), math.log(answer / (1 - answer)))
    assert float(rule.rows(logits, labels).mean()) == pytest.approx(rule.unit(RARE), rel=1e-4)


def test_focal_without_gamma_is_cross_entropy() -> None:
    logits, labels = torch.randn(50), torch.randint(0, 2, (50,)).float()
    torch.testing.assert_close(
        FocalConfig(gamma=0.0).rows(logits, labels), binary_cross_entropy_with_logits(logits, labels, reduction="none")
    )


def test_huber_is_the_squared_error_in_the_middle_and_linear_beyond() -> None:
    errors = HuberConfig(delta=1.0).rows(torch.tensor([0.5, 3.0, 4.0]), torch.zeros(3))
    torch.testing.assert_close(errors, torch.tensor([0.25, 5.0, 7.0]))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_constant_that_loses_least_is_the_quantile(quantile: float) -> None:
    torch.manual_seed(0)
    labels = torch.randn(2000).exp()
    answers = torch.linspace(0.0, 8.0, 801)
    costs = torch.stack([QuantileConfig(quantile=quantile).rows(a.expand(2000), labels).mean() for a in answers])
    assert float(answers[costs.argmin()]) == pytest.approx(float(labels.quantile(quantile)), abs=0.05)


def test_a_loss_for_a_task_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="like, a binary task, a loss of regression tasks: use cross_entropy"):
        RankingLoss(TASKS, losses={"like": HuberConfig()})
    with pytest.raises(ConfigError, match=r"train.within_user names rating, a regression task"):
        RankingLoss(TASKS, within_user={"rating": WithinUserConfig(name="pairwise")})
    with pytest.raises(ConfigError, match=r"within_user names share; the tasks are: like, rating"):
        RankingLoss(TASKS, within_user={"share": WithinUserConfig(name="pairwise")})


def by_loop(name: str, logits: Tensor, labels: Tensor, users: Tensor) -> float:
    terms: list[Tensor] = []
    for user in users.unique():
        z, y = logits[users == user], labels[users == user]
        if y.min() == y.max():
            continue
        if name == "pairwise":
            terms += [-(i - j).sigmoid().log() for i in z[y == 1] for j in z[y == 0]]
        elif name == "listwise":
            terms += [-(i - z.logsumexp(0)) for i in z[y == 1]]
        else:
            terms += [-(i / 2 - (z / 2).logsumexp(0)) for i in z[y == 1]]
            terms += [-(-j / 2 - (-z / 2).logsumexp(0)) for j in z[y == 0]]
    return float(torch.stack(terms).mean())


@pytest.mark.parametrize("name", ["pairwise", "listwise", "jrc"])
def test_terms_within_a_user_equal_loops_over_that_users_rows(name: Any) -> None:
    torch.manual_seed(1)
    logits, labels = 3 * torch.randn(200, requires_grad=True), torch.randint(0, 2, (200,)).float()
    users = torch.randint(-(2**62), 2**62, (40,))[torch.randint(0, 40, (200,))]
    term = WithinUserConfig(name=name, weight=2.0).loss(logits, labels, users)
    assert float(term.detach()) == pytest.approx(2.0 * by_loop(name, logits.detach(), labels, users), rel=1e-5)
    term.backward()


@pytest.mark.parametrize("name", ["pairwise", "listwise", "jrc"])
def test_rows_that_stand_alone_say_nothing(name: Any) -> None:
    logits = torch.randn(6, requires_grad=True)
    term = WithinUserConfig(name=name).loss(logits, torch.tensor([1.0, 0, 1, 0, 1, 0]), torch.arange(6))
    term.backward()
    assert float(term.detach()) == 0.0


def test_the_term_is_added_to_its_task_over_the_rows_that_the_task_applies_to() -> None:
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [9.0, 0.0]])
    labels, weights = torch.tensor([[1.0, 3.5], [0.0, 3.5], [0.0, 3.5]]), torch.ones(3, 2)
    weights[2, 0] = 0.0
    output = RankerOutput(logits, {}, (), torch.zeros(0))
    users = torch.tensor([7, 7, 7])
    plain = RankingLoss(TASKS)(output, labels, weights)
    loss = RankingLoss(TASKS, within_user={"like": WithinUserConfig(name="pairwise", weight=0.5)})
    gained = loss(output, labels, weights, users).tasks_T - plain.tasks_T
    torch.testing.assert_close(gained, torch.tensor([0.5 * math.log1p(math.exp(1.0)), 0.0]))
