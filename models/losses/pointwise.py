"""Losses of a row by itself, chosen by `name` for each task.

Regression outputs and labels are in units of the label's spread around its mean.

Shape legend: B rows.
"""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from contract.schema import TaskSpec
from contract.settings import Settings

_LEAST_UNIT = 1e-3
"""About the entropy of a base rate of 1 in 10,000: with fewer positives a task's gradient is mostly chance."""


class Pointwise(Settings, ABC):
    """A rule for one task; `kind` is the kind of task that it is for."""

    kind: ClassVar[Literal["binary", "regression"]] = "binary"

    @abstractmethod
    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""

    def unit(self, task: TaskSpec) -> float:
        """What a row costs on average who knows nothing but the base rate; 1 for a regression and an unknown rate."""
        rate = task.base_rate
        if self.kind == "regression" or not 0.0 < rate < 1.0:
            return 1.0
        answer = torch.tensor(self.best_constant(rate), dtype=torch.float64)
        costs_B = self.rows(torch.logit(answer).expand(2), torch.tensor([1.0, 0.0], dtype=torch.float64))
        return max(float(rate * costs_B[0] + (1.0 - rate) * costs_B[1]), _LEAST_UNIT)

    def best_constant(self, rate: float) -> float:
        """The probability that loses least where nothing but the base rate is known."""
        return rate


class CrossEntropyConfig(Pointwise):
    """-log of the label's probability.

    Export's calibration (`export.calibrate`) undoes a `positive_weight`; the weight of a task as a whole is
    `train.task_weights`.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    positive_weight: Annotated[float, Field(gt=0.0)] = 1.0
    """How often a positive row counts. It makes the probabilities too high by as much."""

    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""
        plain_B = functional.binary_cross_entropy_with_logits(outputs_B, labels_B.clamp(0.0, 1.0), reduction="none")
        return plain_B if self.positive_weight == 1.0 else plain_B * (1 + (self.positive_weight - 1) * labels_B)

    def best_constant(self, rate: float) -> float:
        """The weighted share of positives."""
        return self.positive_weight * rate / (self.positive_weight * rate + 1.0 - rate)


class FocalConfig(Pointwise):
    """Cross-entropy times (1 - probability of the label) ** `gamma`, so that rows already answered well count little.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 4. Its answers are drawn towards 1/2.
    """

    name: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0.0)] = 2.0
    """How strongly rows count less that are already answered well."""

    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""
        cost_B = functional.binary_cross_entropy_with_logits(outputs_B, labels_B.clamp(0.0, 1.0), reduction="none")
        return (1.0 - torch.exp(-cost_B)).pow(self.gamma) * cost_B


class SquaredConfig(Pointwise):
    """Squared error: the answer is the mean."""

    kind = "regression"
    name: Literal["squared"] = "squared"

    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""
        return (outputs_B - labels_B).square()


class HuberConfig(Pointwise):
    """Squared error up to `delta` spreads, growing linearly beyond: labels with a heavy tail move the answer less.

    Source: Huber 1964, "Robust Estimation of a Location Parameter", equation 1.4, times 2 so that its middle is the
    squared error.
    """

    kind = "regression"
    name: Literal["huber"] = "huber"
    delta: Annotated[float, Field(gt=0.0)] = 1.0
    """Where the loss turns from squared to linear, in spreads of the label."""

    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""
        return 2.0 * functional.huber_loss(outputs_B, labels_B, reduction="none", delta=self.delta)


class QuantileConfig(Pointwise):
    """The answer is the label's `quantile` and not its mean.

    Source: Koenker and Bassett 1978, "Regression Quantiles", equation 3.1.
    """

    kind = "regression"
    name: Literal["quantile"] = "quantile"
    quantile: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Which quantile."""

    def rows(self, outputs_B: Tensor, labels_B: Tensor) -> Tensor:
        """The loss of each row [B]."""
        above_B = labels_B - outputs_B
        return torch.maximum(self.quantile * above_B, (self.quantile - 1.0) * above_B)


PointwiseConfig = Annotated[
    CrossEntropyConfig | FocalConfig | SquaredConfig | HuberConfig | QuantileConfig, Field(discriminator="name")
]
"""Any loss's configuration; in YAML, ``name`` says which."""


def default_loss(task: TaskSpec) -> Pointwise:
    """Cross-entropy for a binary task, squared error for a regression.

    >>> default_loss(TaskSpec(name="like", kind="binary")).unit(TaskSpec(name="x", kind="binary", base_rate=0.5))
    0.6931471805599453
    """
    return CrossEntropyConfig() if task.kind == "binary" else SquaredConfig()
