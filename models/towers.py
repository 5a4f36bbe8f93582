"""The task towers: each reads its task's mixture and gives one raw output.

Shape legend: B rows, T tasks, O outputs of one expert.
"""

import math

import torch
from torch import Tensor, nn

from features.schema import TaskSpec
from models.config import ModelConfig
from models.mlp import mlp


class Tower(nn.Module):
    """Hidden layers and one output: a logit, or a regression value in units of the task's spread."""

    def __init__(self, inputs: int, task: TaskSpec, config: ModelConfig) -> None:
        """Start at the task's base rate, so that the first steps are not spent on the intercept."""
        super().__init__()
        self.hidden = mlp(inputs, config.tower_widths, config)
        self.head = nn.Linear(config.tower_widths[-1] if config.tower_widths else inputs, 1)
        with torch.no_grad():
            self.head.bias.fill_(_starting_point(task))

    def forward(self, mixture_BO: Tensor) -> Tensor:
        """One raw output a row, [B, 1]."""
        output: Tensor = self.head(self.hidden(mixture_BO))
        return output


class Towers(nn.Module):
    """One tower a task."""

    def __init__(self, inputs: int, tasks: tuple[TaskSpec, ...], config: ModelConfig) -> None:
        """Build the towers in the order of `tasks`."""
        super().__init__()
        self.towers = nn.ModuleList(Tower(inputs, task, config) for task in tasks)

    def forward(self, mixtures_TBO: Tensor) -> Tensor:
        """Raw outputs [B, T]."""
        return torch.cat([tower(m) for tower, m in zip(self.towers, mixtures_TBO.unbind(), strict=True)], dim=1)


def _starting_point(task: TaskSpec) -> float:
    if task.kind == "regression":
        return 0.0
    rate = min(max(task.base_rate, 1e-4), 1 - 1e-4)
    return math.log(rate / (1 - rate))
