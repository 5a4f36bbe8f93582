"""Expert health: which experts each task's gate uses, how evenly, and how many in all.

Watch for what Wang et al. 2024 ("HoME") name collapse (experts nobody uses) and degradation (an expert that only
one task uses), and for the union over tasks, which is what the sparse graph has to compute.

Shape legend: B rows, T tasks, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

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
    """Accumulates health over batches; a shared gate counts for every task."""

    def __init__(self, tasks: int, experts: int) -> None:
        """Start from no rows."""
        self._weight_TE = torch.zeros(tasks, experts, dtype=torch.float64)
        self._share_TE = torch.zeros(tasks, experts, dtype=torch.float64)
        self._union = 0.0
        self._rows = 0

    @torch.no_grad()
    def add(self, routings: tuple[Routing, ...], rows: int) -> None:
        """Count `rows` rows with the gates' routing of them (a static gate's one row stands for all)."""
        union_B = union(routings, rows).sum(dim=1) / self._share_TE.shape[1]
        for task in range(self._weight_TE.shape[0]):
            routing = routings[task % len(routings)]
            self._weight_TE[task] += _column_sums(routing.weights_BE, rows)
            self._share_TE[task] += _column_sums(routing.selected_BE, rows)
        self._union += float(union_B.sum())
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


def union(routings: tuple[Routing, ...], rows: int) -> Tensor:
    """Which experts at least one gate selects, bool [B, E]."""
    selected = torch.stack([routing.selected_BE.expand(rows, -1) for routing in routings])
    return selected.any(dim=0)


def _column_sums(values_BE: Tensor, rows: int) -> Tensor:
    return values_BE.expand(rows, -1).sum(dim=0, dtype=torch.float64).cpu()
