"""Weights that stay as configured."""

from typing import Literal

from torch import Tensor

from contract.schema import TaskSpec
from models.losses import Losses
from models.weighting.task_weighting import Shared, Weighting, WeightingSettings, minimise


class FixedConfig(WeightingSettings):
    """`task_weights`, and nothing else."""

    name: Literal["fixed"] = "fixed"

    def build(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> Weighting:
        """Build the rule."""
        return Fixed(tasks, weights_T)


class Fixed(Weighting):
    """total = sum_t weight_t * loss_t."""

    def backward(self, losses: Losses, shared: Shared) -> Losses:
        """One backward pass."""
        del shared
        return minimise(losses, self.weights_T)
