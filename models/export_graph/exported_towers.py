"""The towers in the graph: each one for itself, or all of a member as one where they read one mixture.

Shape legend: N candidate rows, O mixture columns, T tasks, H hidden units of all towers of a member.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.schema import TaskSpec
from models.export_graph.affine import Affine, join
from models.export_graph.blocks import Tail, affine_of, folded, folded_mlp
from models.export_graph.side_graph import SideValues
from models.heads.towers import Tower, Towers, gated
from models.layers.mlp import Block


def towers_graph(towers: Towers, tasks: Sequence[TaskSpec], streams: Sequence[int]) -> nn.Module:
    """What makes of all towers' mixtures each task's answer [N] on its own scale; `streams` says which share one."""
    count = len(tasks)
    one_each = all(len(set(streams[first : first + count])) == 1 for first in range(0, len(streams), count))
    if count > 1 and one_each and _plain(towers.typed_towers):
        return OneMixture(towers, tasks)
    return SeparateTowers(towers, tasks)


class SeparateTowers(nn.ModuleList):
    """A tower per task and member."""

    def __init__(self, towers: Towers, tasks: Sequence[TaskSpec]) -> None:
        """Fold all towers."""
        super().__init__(_TaskGraph(towers, place, task) for place, task in enumerate(tasks))

    def forward(self, mixtures: Sequence[Tensor], side: SideValues) -> list[Tensor]:
        """Each task's answer [N]."""
        priors = [None] * len(mixtures) if side.personal is None else side.personal
        own = [slice(place, None, len(self)) for place in range(len(self))]
        return [
            task(mixtures[towers], priors[towers], side.monotone_NC) for task, towers in zip(self, own, strict=True)
        ]


class OneMixture(nn.Module):
    """All hidden layers of a member as one, and all heads as one: a product of a few columns costs mostly its call."""

    def __init__(self, towers: Towers, tasks: Sequence[TaskSpec]) -> None:
        """Join the towers of each member."""
        super().__init__()
        every, count = towers.typed_towers, len(tasks)
        own = [every[first : first + count] for first in range(0, len(every), count)]
        self.members = nn.ModuleList(_Joined(each, tasks, 1 / len(own)) for each in own)
        self.binary = [task.kind == "binary" for task in tasks]
        self.calibrations = copy.deepcopy(towers.calibrations)
        self.calibrated = any(not isinstance(each, nn.Identity) for each in self.calibrations)

    def forward(self, mixtures: Sequence[Tensor], side: SideValues) -> list[Tensor]:
        """Each task's answer [N]."""
        del side  # which no tower of this form reads
        first, *others = (run(x) for run, x in zip(self.members, mixtures[:: len(self.binary)], strict=True))
        logits_TN = sum(others, first).t()
        if not self.calibrated:
            chances_TN = logits_TN.sigmoid()
            return [(chances_TN if binary else logits_TN)[task] for task, binary in enumerate(self.binary)]
        pairs = zip(self.calibrations, self.binary, logits_TN, strict=True)
        return [
            calibrate(logits_N.unsqueeze(1)).sigmoid().squeeze(1) if binary else logits_N
            for calibrate, binary, logits_N in pairs
        ]


class _Joined(nn.Module):
    """A member's towers: its share of every task's raw answer [N, T]."""

    def __init__(self, towers: Sequence[Tower], tasks: Sequence[TaskSpec], share: float) -> None:
        super().__init__()
        blocks = [block for tower in towers for block in tower.hidden if isinstance(block, Block)]
        self.hidden: nn.Module = nn.Identity()
        if blocks:
            self.hidden = nn.Sequential(folded(join([affine_of(block) for block in blocks])), Tail(blocks[0]))
        heads = [_head(tower, task, share) for tower, task in zip(towers, tasks, strict=True)]
        rows = [head.weight_HD for head in heads]
        # Without a hidden layer all heads read the same columns, else each those of its own.
        heads_TH = torch.block_diag(*rows) if blocks else torch.cat(rows)
        self.heads = folded(Affine(heads_TH, torch.cat([head.bias_H for head in heads])))

    def forward(self, mixture_NO: Tensor) -> Tensor:
        answers_NT: Tensor = self.heads(self.hidden(mixture_NO))
        return answers_NT


class _TaskGraph(nn.Module):
    """A task's towers of all members, with their mean answer on the task's own scale."""

    def __init__(self, towers: Towers, place: int, task: TaskSpec) -> None:
        super().__init__()
        own = towers.of_task(place)
        self.members = nn.ModuleList(_TowerGraph(tower, task, 1 / len(own)) for tower in own)
        calibration = copy.deepcopy(towers.calibrations[place])
        self.answer = nn.Identity() if task.kind == "regression" else nn.Sequential(calibration, nn.Sigmoid())

    def forward(
        self, mixtures: Sequence[Tensor], priors: Sequence[Tensor | None], monotone_NC: Tensor | None
    ) -> Tensor:
        rows = zip(self.members, mixtures, priors, strict=True)
        first, *others = (tower(mixture, prior, monotone_NC) for tower, mixture, prior in rows)
        answer_N1: Tensor = self.answer(sum(others, first))
        return answer_N1.squeeze(1)


class _TowerGraph(nn.Module):
    """One tower's share of its task's raw answer."""

    def __init__(self, tower: Tower, task: TaskSpec, share: float) -> None:
        super().__init__()
        self.hidden = folded_mlp([block for block in tower.hidden if isinstance(block, Block)])
        self.head = folded(_head(tower, task, share))
        self.personal, self.monotone = copy.deepcopy(tower.personal), copy.deepcopy(tower.monotone)
        self.spread = share * (max(task.spread, 1e-6) if task.kind == "regression" else 1.0)

    def forward(self, mixture_NO: Tensor, prior_NH: Tensor | None, monotone_NC: Tensor | None) -> Tensor:
        factors = None
        if self.personal is not None and prior_NH is not None:
            factors = self.personal.factors(prior_NH, mixture_NO)
        raw_N1: Tensor = self.head(gated(self.hidden, mixture_NO, factors))
        if self.monotone is not None and monotone_NC is not None:
            raw_N1 = raw_N1 + self.spread * self.monotone(mixture_NO, monotone_NC)
        return raw_N1


def _head(tower: Tower, task: TaskSpec, share: float) -> Affine:
    """The last layer's share of a mean answer; a regression's on the scale of its labels."""
    head = Affine.of(tower.head.weight, tower.head.bias)
    if task.kind == "regression":
        head = head.scaled(max(task.spread, 1e-6), task.base_rate)
    return head if share == 1 else head.scaled(share, 0.0)


def _plain(towers: Sequence[Tower]) -> bool:
    """Whether all towers have one hidden layer at most, and nothing that cannot be joined to others'."""
    blocks = [list(tower.hidden) for tower in towers]
    return all(
        len(each) <= 1
        and all(isinstance(block, Block) and not block.residual and not _normed(block) for block in each)
        and len(each) == len(blocks[0])
        for each in blocks
    ) and not any(tower.personal or tower.monotone for tower in towers)


def _normed(block: Block) -> bool:
    """Whether a norm of the block cannot be folded into its layer."""
    return isinstance(block.norm, nn.GroupNorm)
