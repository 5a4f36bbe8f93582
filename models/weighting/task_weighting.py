"""The interface of loss weighting: from the tasks' losses to gradients, with a state that a checkpoint keeps.

Shape legend: B rows, D columns, T tasks.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from contract.schema import TaskSpec
from contract.settings import Settings
from models.losses import Losses


class Shared(NamedTuple):
    """What the tasks share: the input matrix [B, D], behind which the tables lie, and the network's parameters."""

    columns_BD: Tensor
    parameters: list[nn.Parameter]


class Weighting(nn.Module, ABC):
    """A rule that says how much each task counts; `weights_T` are the configuration's own weights."""

    weights_T: Tensor

    def __init__(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> None:
        """Keep the configured weights, which no checkpoint holds."""
        super().__init__()
        self.tasks = tasks
        self.register_buffer("weights_T", weights_T, persistent=False)

    @abstractmethod
    def backward(self, losses: Losses, shared: Shared) -> Losses:
        """Give every parameter its gradient; the answer's total is what was minimised."""


class WeightingSettings(Settings, ABC):
    """The options of a rule."""

    @abstractmethod
    def build(self, tasks: tuple[TaskSpec, ...], weights_T: Tensor) -> Weighting:
        """Build the rule."""


def minimise(losses: Losses, factors_T: Tensor) -> Losses:
    """Backward of the weighted sum of the tasks' losses and the penalties."""
    total = (losses.tasks_T * factors_T).sum()
    for penalty in losses.penalties.values():
        total = total + penalty
    total.backward()
    return losses._replace(total=total)


def everywhere(values_T: Tensor) -> Tensor:
    """The mean over all ranks, so that each takes the same step."""
    mean_T = values_T.detach().clone()
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(mean_T)
        mean_T /= distributed.get_world_size()
    return mean_T


def feature_norms(tasks_T: Tensor, columns_BD: Tensor) -> Tensor:
    """The norm of each task's gradient at the input matrix, [T]; 0 for a task without rows in the batch."""
    norms = []
    for loss in tasks_T.unbind():
        (gradient,) = torch.autograd.grad(loss, columns_BD, retain_graph=True, allow_unused=True)
        norms.append(columns_BD.new_zeros(()) if gradient is None else gradient.norm())
    return torch.stack(norms)
