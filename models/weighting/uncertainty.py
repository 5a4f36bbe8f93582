"""Weights learned from each task's own noise.

Source: Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
Semantics", equations 7 and 10: loss / sigma^2 + log sigma for a classification, half of the first for a regression.
With s = log sigma^2 the derivative is known, so s is a number of ours and not a parameter of the model.

Shape legend: T tasks.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses
from models.weighting.task_weighting import Shared, Weighting, WeightingSettings, everywhere, minimise

_LARGEST = 6.0
"""Bound on |s|: a task whose loss goes to 0 would otherwise grow without end."""


class UncertaintyConfig(WeightingSettings):
    """The options of weighting by uncertainty."""

    name: Literal["uncertainty"] = "uncertainty"
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """How fast the log-variances follow, by plain gradient descent."""

    def build(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> Weighting:
        """Build the rule."""
        return Uncertainty(self, tasks, weights_T)


class Uncertainty(Weighting):
    """total = sum_t weight_t * c_t exp(-s_t) * loss_t, c = 1/2 for regressions and 1 else."""

    log_variance_T: Tensor
    scale_T: Tensor

    def __init__(self, config: UncertaintyConfig, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> None:
        """Start from variances of 1."""
        super().__init__(tasks, weights_T)
        self.rate = config.learning_rate
        self.register_buffer("log_variance_T", torch.zeros_like(weights_T))
        scale = [0.5 if task.kind == "regression" else 1.0 for task in tasks]
        self.register_buffer("scale_T", torch.tensor(scale, device=weights_T.device), persistent=False)

    def backward(self, losses: Losses, shared: Shared) -> Losses:
        """One backward pass with the present variances, then a step of theirs."""
        del shared
        precision_T = self.scale_T * (-self.log_variance_T).exp()
        minimised = minimise(losses, self.weights_T * precision_T)
        slope_T = 0.5 - precision_T * everywhere(losses.tasks_T)
        self.log_variance_T.sub_(self.rate * slope_T).clamp_(-_LARGEST, _LARGEST)
        return minimised
