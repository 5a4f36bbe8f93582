"""The task towers: each reads its task's mixture and gives one raw output.

Shape legend: B rows, T tasks, M members, O outputs of one expert.
"""

from collections.abc import Sequence
from typing import NamedTuple

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

    def forward(self, mixture_BO: Tensor, side: SideInput | None = None) -> Tensor:
        """One raw output per row, [B, 1]; `side` is what personal gates and monotone features read."""
        factors = None
        if self.personal is not None and side is not None:
            factors = self.personal(side.personal_BP, mixture_BO)
        output: Tensor = self.head(gated(self.hidden, mixture_BO, factors))
        if self.monotone is not None and side is not None:
            output = output + self.monotone(mixture_BO, side.monotone_BC)
        return output

    @torch.no_grad()
    def rescale(self, slope: float, intercept: float) -> None:
        """Answer ``slope * output + intercept`` from now on, with `slope` above 0."""
        self.head.weight.mul_(slope)
        self.head.bias.mul_(slope).add_(intercept)
        if self.monotone is not None:
            self.monotone.signs_C.mul_(slope)


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


class TowersOutput(NamedTuple):
    """Raw outputs [B, T], and of several members in training each one's own [B, T]."""

    outputs_BT: Tensor
    members: tuple[Tensor, ...] = ()


class Towers(nn.Module):
    """One tower per member and task, and the chains between tasks."""

    def __init__(
        self, inputs: int, tasks: tuple[TaskSpec, ...], config: ModelConfig, side: SideColumns = NO_SIDE
    ) -> None:
        """Build the towers in the order of `tasks`, the first member's before the second's.

        Raises:
            ConfigError: a chain between tasks that cannot be chained.
        """
        super().__init__()
        self.chain = Chain(tasks, config.chains)
        starts = self.chain.starting_points() * config.members
        self.towers = nn.ModuleList(Tower(inputs, start, config, side) for start in starts)
        # What export may put behind trained towers: a curve from a task's logit to a calibrated one.
        self.calibrations = nn.ModuleList(nn.Identity() for _ in tasks)

    def forward(self, mixtures: Sequence[Tensor], side: SideInput | None = None) -> TowersOutput:
        """Raw outputs of the towers' mixtures [B, O]; those of members are averaged before tasks are chained."""
        outputs = self._outputs(mixtures, side)
        tasks = len(self.calibrations)
        if len(outputs) == tasks:
            return TowersOutput(self._answers(outputs))
        members = [outputs[first : first + tasks] for first in range(0, len(outputs), tasks)]
        mean = [torch.stack(own).mean(dim=0) for own in zip(*members, strict=True)]
        own = tuple(self._answers(each) for each in members) if self.training else ()
        return TowersOutput(self._answers(mean), own)

    def of_task(self, task: int) -> list[Tower]:
        """A task's tower of each member."""
        return self.typed_towers[task :: len(self.calibrations)]

    def _answers(self, outputs: Sequence[Tensor]) -> Tensor:
        """A raw output for each task, calibrated and chained, [B, T] of at least 32 bits."""
        calibrated = [curve(output) for curve, output in zip(self.calibrations, outputs, strict=True)]
        outputs_BT = torch.cat(self.chain(calibrated), dim=1)
        return outputs_BT if outputs_BT.dtype == torch.float64 else outputs_BT.float()

    def _outputs(self, mixtures: Sequence[Tensor], side: SideInput | None) -> list[Tensor]:
        if (
            side is None
            and self.training
            and stacks(mixtures[0])
            and can_stack([tower.hidden for tower in self.typed_towers])
        ):
            return self._stacked(mixtures)
        return [tower(mixture, side) for tower, mixture in zip(self.towers, mixtures, strict=True)]

    @property
    def typed_towers(self) -> list[Tower]:
        """The towers in the order of the tasks, member by member."""
        return [tower for tower in self.towers if isinstance(tower, Tower)]

    def _stacked(self, mixtures: Sequence[Tensor]) -> list[Tensor]:
        """Each tower's raw output [B, 1], all towers a layer at a time."""
        x_TBO = torch.stack(list(mixtures))
        for blocks in zip(*(tower.hidden for tower in self.typed_towers), strict=True):
            x_TBO = stacked_blocks(x_TBO, blocks)
        heads = [tower.head for tower in self.typed_towers]
        weight_T1O, bias_T1 = torch.stack([head.weight for head in heads]), torch.stack([head.bias for head in heads])
        return list(stacked_linear(x_TBO, weight_T1O, bias_T1).unbind())
