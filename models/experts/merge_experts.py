"""One expert in place of several: gates give it the sum of the weights that they gave them.

Shape legend: B rows, E experts before, K experts after, M experts of one gate as it was trained.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from models.experts.level import Level, Widen
from models.experts.prune_experts import keep_experts


class MergedWiden(Widen):
    """A gate's columns [B, M] as those of the experts that stay [B, K], to which what went is added."""

    place_EK: Tensor

    def __init__(self, before: Widen, kept: list[int], into: Mapping[int, int], experts: int) -> None:
        """Stand behind a gate's own `before`, which knows all `experts`."""
        super().__init__(list(range(experts)), experts)
        self.before = copy.deepcopy(before)
        place_EK = torch.zeros(experts, len(kept))
        for expert in range(experts):
            place_EK[expert, kept.index(into.get(expert, expert))] = 1.0
        self.register_buffer("place_EK", place_EK, persistent=False)

    def forward(self, values_BM: Tensor) -> Tensor:
        """Take weights or bools."""
        values_BE = self.before(values_BM)
        if values_BE.dtype == torch.bool:
            return values_BE.to(self.place_EK.dtype) @ self.place_EK > 0
        merged_BK: Tensor = values_BE @ self.place_EK.to(values_BE.dtype)
        return merged_BK


def merge_experts(level: Level, into: Mapping[int, int]) -> None:
    """Let, in place, the experts that are keys of `into` go; the values, which stay, answer for them."""
    experts = level.plan.experts
    kept = [expert for expert in range(experts) if expert not in into]
    widens = [MergedWiden(each, kept, into, experts) for each in level.widen if isinstance(each, Widen)]
    most_used = [next(e for e in level.plan.experts_of(gate) if e not in into) for gate in level.plan.gates]
    keep_experts(level, kept, most_used)
    for place, widen in enumerate(widens):
        level.widen[place] = widen
