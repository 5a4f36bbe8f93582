"""The towers in the graph: each one for itself, or all as one where they read one mixture.

Shape legend: N candidate rows, O mixture columns, T tasks, H hidden units of all towers.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contract.schema import TaskSpec
from models.export_graph.affine import Affine, join
from models.export_graph.blocks import Tail, affine_of, folded, folded_mlp
from models.export_graph.side_graph import SideValues
from models.heads.towers import Tower, gated
from models.layers.mlp import Block


def towers_graph(towers: Sequence[Tower], tasks: Sequence[TaskSpec], streams: Sequence[int]) -> nn.Module:
    """What makes of each task's mixture its answer [N] on its own scale; `streams` says which tasks share a mixture."""
    blocks = [list(tower.hidden) for tower in towers]
    plain = all(
        len(each) <= 1
        and all(isinstance(block, Block) and not block.residual and not _normed(block) for block in each)
        and len(each) == len(blocks[0])
        for each in blocks
    ) and not any(tower.personal or tower.monotone for tower in towers)
    if len(towers) > 1 and len(set(streams)) == 1 and plain:
        return _OneMixture(towers, tasks)
    return SeparateTowers(towers, tasks)


class SeparateTowers(nn.ModuleList):
    """A tower per task."""

    def __init__(self, towers: Sequence[Tower], tasks: Sequence[TaskSpec]) -> None:
        super().__init__(_TowerGraph(tower, task) for tower, task in zip(towers, tasks, strict=True))

    def forward(self, mixtures: Sequence[Tensor], side: SideValues) -> list[Tensor]:
        """Each task's answer [N]."""
        priors = [None] * len(self) if side.personal is None else side.personal
        rows = zip(self, mixtures, priors, strict=True)
        return [tower(mixture, prior, side.monotone_NC) for tower, mixture, prior in rows]


class _OneMixture(nn.Module):
    """All hidden layers as one, and all heads as one: a product of a few columns costs mostly its call."""

    def __init__(self, towers: Sequence[Tower], tasks: Sequence[TaskSpec]) -> None:
        super().__init__()
        blocks = [block for tower in towers for block in tower.hidden if isinstance(block, Block)]
        self.hidden: nn.Module = nn.Identity()
        if blocks:
            self.hidden = nn.Sequential(folded(join([affine_of(block) for block in blocks])), Tail(blocks[0]))
        heads = [_head(tower, task) for tower, task in zip(towers, tasks, strict=True)]
        rows = [head.weight_HD for head in heads]
        # Without a hidden layer all heads read the same columns, else each those of its own.
        heads_TH = torch.block_diag(*rows) if blocks else torch.cat(rows)
        self.heads = folded(Affine(heads_TH, torch.cat([head.bias_H for head in heads])))
        self.binary = [task.kind == "binary" for task in tasks]
        self.calibrations = nn.ModuleList(copy.deepcopy(tower.calibration) for tower in towers)
        self.calibrated = any(not isinstance(each, nn.Identity) for each in self.calibrations)

    def forward(self, mixtures: Sequence[Tensor], side: SideValues) -> list[Tensor]:
        del side  # which no tower of this form reads
        logits_TN = self.heads(self.hidden(mixtures[0])).t()
        if not self.calibrated:
            chances_TN = logits_TN.sigmoid()
            return [(chances_TN if binary else logits_TN)[task] for task, binary in enumerate(self.binary)]
        pairs = zip(self.calibrations, self.binary, logits_TN, strict=True)
        return [
            calibrate(logits_N.unsqueeze(1)).sigmoid().squeeze(1) if binary else logits_N
            for calibrate, binary, logits_N in pairs
        ]


class _TowerGraph(nn.Module):
    """A tower with its answer on the task's own scale."""

    def __init__(self, tower: Tower, task: TaskSpec) -> None:
        super().__init__()
        self.hidden = folded_mlp([block for block in tower.hidden if isinstance(block, Block)])
        regression = task.kind == "regression"
        self.head = folded(_head(tower, task))
        self.personal, self.monotone = copy.deepcopy(tower.personal), copy.deepcopy(tower.monotone)
        self.spread = max(task.spread, 1e-6) if regression else 1.0
        self.answer = nn.Identity() if regression else nn.Sequential(copy.deepcopy(tower.calibration), nn.Sigmoid())

    def forward(self, mixture_NO: Tensor, prior_NH: Tensor | None, monotone_NC: Tensor | None) -> Tensor:
        factors = None
        if self.personal is not None and prior_NH is not None:
            factors = self.personal.factors(prior_NH, mixture_NO)
        raw_N1: Tensor = self.head(gated(self.hidden, mixture_NO, factors))
        if self.monotone is not None and monotone_NC is not None:
            raw_N1 = raw_N1 + self.spread * self.monotone(mixture_NO, monotone_NC)
        answer_N1: Tensor = self.answer(raw_N1)
        return answer_N1.squeeze(1)


def _head(tower: Tower, task: TaskSpec) -> Affine:
    """The last layer; a regression's answers on the scale of its labels."""
    head = Affine.of(tower.head.weight, tower.head.bias)
    return head.scaled(max(task.spread, 1e-6), task.base_rate) if task.kind == "regression" else head


def _normed(block: Block) -> bool:
    """Whether a norm of the block cannot be folded into its layer."""
    return isinstance(block.norm, nn.GroupNorm)
