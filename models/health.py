"""Expert health: which experts each task's gate uses, how evenly, and how many in all.

Watch for what Wang et al. 2024 ("HoME") name collapse (experts nobody uses) and degradation (an expert that only
one task uses), and for the union over tasks, which is what the sparse graph has to compute.

Shape legend: B rows, T tasks, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.architectures import Plan
from models.gates import Routing


@dataclass(frozen=True)
class ExpertHealth:
    """Averages over rows. Share of rows: how often the expert is selected.

    `weight` and `share` float [T][E]; `selected` float [T], experts a row; `union` in (0, 1], the share of all
    experts that at least one task selects in a row.
    """

    weight: list[list[float]]
    share: list[list[float]]
    selected: list[float]
    union: float


class HealthMeter:
    """Accumulates health over batches; a shared gate counts for every task that it serves."""

    def __init__(self, plan: Plan, tasks: int) -> None:
        """Start from no rows."""
        self._plan = plan
        self._weight_TE = torch.zeros(tasks, plan.experts, dtype=torch.float64)
        self._share_TE = torch.zeros(tasks, plan.experts, dtype=torch.float64)
        self._union = 0.0
        self._rows = 0

    @torch.no_grad()
    def add(self, routings: tuple[Routing, ...], rows: int) -> None:
        """Count `rows` rows with the gates' routing of them (a static gate's one row stands for all)."""
        selected_TE = torch.zeros_like(self._share_TE)
        for (first, level, gate), routing in zip(self._plan.gates(), routings, strict=True):
            span = slice(first, first + level.experts)
            weight_E, share_E = (_column_sums(x, rows) for x in (routing.weights_BE, routing.selected_BE))
            for task in gate.tasks:
                self._weight_TE[task, span] += weight_E
                # Two gates of a task that take the same expert take it once.
                selected_TE[task, span] = torch.maximum(selected_TE[task, span], share_E)
        self._share_TE += selected_TE
        self._union += float(union(self._plan, routings, rows).sum()) / max(self._plan.experts, 1)
        self._rows += rows

    def result(self) -> ExpertHealth:
        """The averages so far (zeros before the first row)."""
        rows = max(self._rows, 1)
        share = self._share_TE / rows
        return ExpertHealth(
            weight=(self._weight_TE / rows).tolist(),
            share=share.tolist(),
            selected=share.sum(dim=1).tolist(),
            union=self._union / rows,
        )


def union(plan: Plan, routings: tuple[Routing, ...], rows: int) -> Tensor:
    """Which experts at least one gate selects, over all levels, bool [B, E]."""
    union_BE = torch.zeros(rows, plan.experts, dtype=torch.bool)
    for (first, level, _), routing in zip(plan.gates(), routings, strict=True):
        union_BE[:, first : first + level.experts] |= routing.selected_BE.cpu()
    return union_BE


def _column_sums(values_BE: Tensor, rows: int) -> Tensor:
    return values_BE.expand(rows, -1).sum(dim=0, dtype=torch.float64).cpu()
