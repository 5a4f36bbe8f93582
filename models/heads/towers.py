"""The task towers: each reads its task's mixture and gives one raw output.

Shape legend: B rows, T tasks, O outputs of one expert.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.schema import TaskSpec
from models.heads.chains import Chain
from models.layers.batched_product import stacked_linear, stacks
from models.layers.mlp import mlp
from models.layers.stacked import can_stack, stacked_blocks
from models.model_config import ModelConfig


class Tower(nn.Module):
    """Hidden layers and one output: a logit, or a regression value in units of the task's spread."""

    def __init__(self, inputs: int, start: float, config: ModelConfig) -> None:
        """Start at the output `start`, so that the first steps are not spent on the intercept."""
        super().__init__()
        self.hidden = mlp(inputs, config.tower_widths, config.blocks)
        self.head = nn.Linear(config.tower_widths[-1] if config.tower_widths else inputs, 1)
        with torch.no_grad():
            self.head.bias.fill_(start)
        # What export may put behind a trained tower: a curve from its logit to a calibrated one.
        self.calibration: nn.Module = nn.Identity()

    def forward(self, mixture_BO: Tensor) -> Tensor:
        """One raw output a row, [B, 1]."""
        output: Tensor = self.calibration(self.head(self.hidden(mixture_BO)))
        return output


class Towers(nn.Module):
    """One tower a task, and the chains between tasks."""

    def __init__(self, inputs: int, tasks: tuple[TaskSpec, ...], config: ModelConfig) -> None:
        """Build the towers in the order of `tasks`.

        Raises:
            ConfigError: a chain between tasks that cannot be chained.
        """
        super().__init__()
        self.chain = Chain(tasks, config.chains)
        self.towers = nn.ModuleList(Tower(inputs, start, config) for start in self.chain.starting_points())

    def forward(self, mixtures: Sequence[Tensor]) -> Tensor:
        """Raw outputs [B, T] of the tasks' mixtures [B, O]."""
        if self.training and stacks(mixtures[0]) and can_stack([tower.hidden for tower in self.typed_towers]):
            return torch.cat(self.chain(self._stacked(mixtures)), dim=1)
        outputs = [tower(mixture) for tower, mixture in zip(self.towers, mixtures, strict=True)]
        return torch.cat(self.chain(outputs), dim=1)

    @property
    def typed_towers(self) -> list[Tower]:
        """The towers in the order of the tasks."""
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def _stacked(self, mixtures: Sequence[Tensor]) -> list[Tensor]:
        """Each tower's raw output [B, 1], all towers a layer at a time."""
        x_TBO = torch.stack(list(mixtures))
        for blocks in zip(*(tower.hidden for tower in self.typed_towers), strict=True):
            x_TBO = stacked_blocks(x_TBO, blocks)
        heads = [tower.head for tower in self.typed_towers]
        weight_T1O, bias_T1 = torch.stack([head.weight for head in heads]), torch.stack([head.bias for head in heads])
        return list(stacked_linear(x_TBO, weight_T1O, bias_T1).unbind())
