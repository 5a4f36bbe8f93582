"""Weights that keep the tasks' gradients of one size, and tasks that learn slowly a little larger.

Source: Chen et al. 2018, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
equations 1 and 2 and algorithm 1. The gradients are taken at the input matrix, which all tasks share in every
architecture, in place of the last shared layer's weights, which not every architecture has.

Shape legend: T tasks.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses
from models.weighting.task_weighting import Shared, Weighting, WeightingSettings, everywhere, feature_norms, minimise

_TINY = 1e-12
_SMALLEST = 1e-3
"""No task is switched off: its weight could not come back."""


class GradNormConfig(WeightingSettings):
    """The options of GradNorm."""

    name: Literal["gradnorm"] = "gradnorm"
    alpha: Annotated[float, Field(ge=0)] = 1.5
    """How strongly slow tasks are favoured; 0: not at all."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.025
    """Of the weights."""

    def build(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> Weighting:
        """Build the rule."""
        return GradNorm(self, tasks, weights_T)


class GradNorm(Weighting):
    """Moves the weights along the sign of (gradient norm - its target), and keeps their sum."""

    factor_T: Tensor
    first_T: Tensor

    def __init__(self, config: GradNormConfig, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> None:
        """Start from equal factors on top of the configured weights."""
        super().__init__(tasks, weights_T)
        self.config = config
        self.register_buffer("factor_T", torch.ones_like(weights_T))
        # The losses at the first step that had any; 0 until then.
        self.register_buffer("first_T", torch.zeros_like(weights_T))

    def backward(self, losses: Losses, shared: Shared) -> Losses:
        """A partial backward pass per task for the norms, one whole pass, then a step of the factors."""
        norms_T = everywhere(feature_norms(losses.tasks_T, shared.columns_BD)) * self.weights_T
        minimised = minimise(losses, self.weights_T * self.factor_T)
        self._follow(norms_T, everywhere(losses.tasks_T))
        return minimised

    def _follow(self, norms_T: Tensor, losses_T: Tensor) -> None:
        self.first_T.copy_(torch.where(self.first_T > 0, self.first_T, losses_T))
        remaining_T = losses_T / self.first_T.clamp_min(_TINY)
        rate_T = (remaining_T / remaining_T.mean().clamp_min(_TINY)).pow(self.config.alpha)
        sizes_T = self.factor_T * norms_T
        slope_T = (sizes_T - sizes_T.mean() * rate_T).sign() * norms_T / norms_T.mean().clamp_min(_TINY)
        moved_T = (self.factor_T - self.config.learning_rate * slope_T).clamp_min(_SMALLEST)
        self.factor_T.copy_(moved_T * len(self.tasks) / moved_T.sum())
