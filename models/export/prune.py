"""Experts that real rows hardly use are left out of what is exported.

Source of the measure: Lu et al. 2024, "Not All Experts are Equal: Efficient Expert Pruning and Skipping for
Mixture-of-Experts Large Language Models"; here an expert is judged by the share of rows that select it in any task.

Shape legend: B rows, E experts of a level.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contract.inputs import Inputs
from models.experts.level import Level
from models.experts.prune_experts import keep_experts
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs


@dataclass(frozen=True)
class Pruned:
    """What was left out: the experts of each level by number, of how many, and the weights that they held."""

    dropped: tuple[tuple[int, ...], ...]
    experts: int
    weights: int
    share: float

    @property
    def count(self) -> int:
        """How many experts went."""
        return sum(map(len, self.dropped))

    def __str__(self) -> str:
        """One line."""
        if not self.count:
            return f"pruned none of {self.experts} experts: each is selected by more than {self.share:.2%} of the rows"
        left_out = f"pruned {self.count} of {self.experts} experts with {self.weights:,} weights"
        return f"{left_out}, each selected by {self.share:.2%} of the rows at most"


@torch.no_grad()
def expert_use(ranker: Ranker, batches: Iterable[Inputs]) -> list[list[Tensor]]:
    """By level and gate the share of rows that select each expert of the level, [E]."""
    ranker.eval()
    counts: list[Tensor] = []
    rows = 0
    for inputs in batches:
        given = TensorInputs.from_numpy(inputs)
        routings = ranker(given).routings
        selected = [routing.selected_BE.expand(given.rows, -1).sum(dim=0).double() for routing in routings]
        counts = [a + b for a, b in zip(counts, selected, strict=True)] if counts else selected
        rows += given.rows
    shares = iter(count / max(rows, 1) for count in counts)
    return [[next(shares) for _ in level.typed_gates] for level in ranker.network.typed_levels]


def prune(ranker: Ranker, use: list[list[Tensor]], share: float) -> Pruned:
    """Leave experts out, in place, that no gate gives to more than `share` of the rows; each gate keeps its best."""
    levels, dropped, weights = ranker.network.typed_levels, [], 0
    experts = ranker.network.plan.experts
    for level, gates in zip(levels, use, strict=True):
        most_used = [_most_used(level, number, used_E) for number, used_E in enumerate(gates)]
        often_E = torch.stack(gates).amax(dim=0) > share
        kept = [e for e in range(level.plan.experts) if bool(often_E[e]) or e in most_used]
        gone = tuple(e for e in range(level.plan.experts) if e not in kept)
        dropped.append(gone)
        if gone:
            before = _weights(level)
            keep_experts(level, kept, most_used)
            weights += before - _weights(level)
    ranker.network.plan = replace(ranker.network.plan, levels=tuple(level.plan for level in levels))
    return Pruned(tuple(dropped), experts, weights, share)


def _most_used(level: Level, number: int, used_E: Tensor) -> int:
    own = level.plan.experts_of(level.plan.gates[number])
    return max(own, key=lambda expert: float(used_E[expert]))


def _weights(level: Level) -> int:
    return sum(parameter.numel() for parameter in level.banks.parameters())
