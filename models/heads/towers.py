"""The task towers: each reads its task's mixture and gives one raw output.

Shape legend: B rows, T tasks, O outputs of one expert.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.schema import TaskSpec
from models.heads.chains import Chain
from models.heads.monotone import MonotoneTerm
from models.interactions.gate_unit import GateUnit
from models.layers.batched_product import stacked_linear, stacks
from models.layers.mlp import mlp
from models.layers.side_columns import NO_SIDE, SideColumns, SideInput
from models.layers.stacked import can_stack, stacked_blocks
from models.model_config import ModelConfig


class Tower(nn.Module):
    """Hidden layers and one output: a logit, or a regression value in units of the task's spread."""

    def __init__(self, inputs: int, start: float, config: ModelConfig, side: SideColumns = NO_SIDE) -> None:
        """Start at the output `start`, so that the first steps are not spent on the intercept."""
        super().__init__()
        self.hidden = mlp(inputs, config.tower_widths, config.blocks)
        self.head = nn.Linear(config.tower_widths[-1] if config.tower_widths else inputs, 1)
        with torch.no_grad():
            self.head.bias.fill_(start)
        self.personal: GateUnit | None = None
        if config.personal_gates is not None:
            widths = (inputs, *config.tower_widths)
            self.personal = GateUnit(len(side.personal), inputs, widths, config.personal_gates.hidden)
        self.monotone = MonotoneTerm(inputs, side.signs) if side.signs else None
        # What export may put behind a trained tower: a curve from its logit to a calibrated one.
        self.calibration: nn.Module = nn.Identity()

    def forward(self, mixture_BO: Tensor, side: SideInput | None = None) -> Tensor:
        """One raw output per row, [B, 1]; `side` is what personal gates and monotone features read."""
        factors = None
        if self.personal is not None and side is not None:
            factors = self.personal(side.personal_BP, mixture_BO)
        output: Tensor = self.head(gated(self.hidden, mixture_BO, factors))
        if self.monotone is not None and side is not None:
            output = output + self.monotone(mixture_BO, side.monotone_BC)
        calibrated: Tensor = self.calibration(output)
        return calibrated


def gated(layers: nn.Sequential, x_BO: Tensor, factors: Sequence[Tensor] | None) -> Tensor:
    """Run layers; `factors`, if given, scale what each of them reads and the last one's answer (PPNet)."""
    if factors is None:
        answer: Tensor = layers(x_BO)
        return answer
    first, *others = factors
    x_BO = x_BO * first
    for layer, factor in zip(layers, others, strict=True):
        x_BO = layer(x_BO) * factor
    return x_BO


class Towers(nn.Module):
    """One tower per task, and the chains between tasks."""

    def __init__(
        self, inputs: int, tasks: tuple[TaskSpec, ...], config: ModelConfig, side: SideColumns = NO_SIDE
    ) -> None:
        """Build the towers in the order of `tasks`.

        Raises:
            ConfigError: a chain between tasks that cannot be chained.
        """
        super().__init__()
        self.chain = Chain(tasks, config.chains)
        self.towers = nn.ModuleList(Tower(inputs, start, config, side) for start in self.chain.starting_points())

    def forward(self, mixtures: Sequence[Tensor], side: SideInput | None = None) -> Tensor:
        """Raw outputs [B, T] of the tasks' mixtures [B, O]."""
        if (
            side is None
            and self.training
            and stacks(mixtures[0])
            and can_stack([tower.hidden for tower in self.typed_towers])
        ):
            return torch.cat(self.chain(self._stacked(mixtures)), dim=1)
        outputs = [tower(mixture, side) for tower, mixture in zip(self.towers, mixtures, strict=True)]
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
