"""Expert health: which experts each task's gate uses, how evenly, how many in all, and what the experts answer.

`models.diagnostics.diagnosis` reads from it what Wang et al. 2024 ("HoME") name collapse, degradation and
underfitting; the union over tasks is what the sparse graph has to compute.

Shape legend: B rows, T tasks, E experts of all levels, O outputs of one expert, K selectors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.architectures import ArchitecturePlan
from models.experts.level import Bank
from models.gates import Gate, Routing
from models.network import Network


@dataclass(frozen=True)
class ExpertHealth:
    """Averages over rows; lists run over tasks [T], experts [E], or both [T][E].

    `weight` and `share` (how often the expert is selected); `selected`: experts per row; `effective`: their effective
    number, the exponential of the entropy of a task's mean weights; `union` in (0, 1]: the share of all experts that at
    least one task selects in a row; `zeros`: the share of an expert's outputs that are 0; `scale`: their root mean
    square; `distance`: how far each task's selectors are from one-hot, 0 converged, None without selectors; `owners`:
    the tasks that an expert was made for.
    """

    weight: list[list[float]]
    share: list[list[float]]
    selected: list[float]
    effective: list[float]
    union: float
    zeros: list[float]
    scale: list[float]
    distance: list[float | None]
    owners: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class HealthMeter:
    """Accumulates health over batches; a shared gate counts for every task that it serves."""

    def __init__(self, plan: ArchitecturePlan, tasks: int) -> None:
        self._plan, self._tasks = plan, tasks
        self._weight_TE = torch.zeros(tasks, plan.experts, dtype=torch.float64)
        self._share_TE = torch.zeros(tasks, plan.experts, dtype=torch.float64)
        self._zeros_E = torch.zeros(plan.experts, dtype=torch.float64)
        self._square_E = torch.zeros(plan.experts, dtype=torch.float64)
        self._answers_E = torch.zeros(plan.experts, dtype=torch.float64)
        self._distance: dict[int, tuple[float, int]] = {}
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

    @contextmanager
    def watching(self, network: Network) -> Iterator[None]:
        """Look at the experts' answers and the gates' selectors while the network runs in evaluation mode."""
        hooks = [
            bank.experts.register_forward_hook(self._answers_hook(first + bank.first))
            for first, bank in _banks(network)
        ]
        hooks += [
            gate.register_forward_hook(self._selectors_hook(place)) for place, gate in enumerate(network.typed_gates)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def result(self) -> ExpertHealth:
        """The averages so far (zeros before the first row)."""
        rows = max(self._rows, 1)
        share = self._share_TE / rows
        counted_E = self._answers_E.clamp(min=1)
        return ExpertHealth(
            weight=(self._weight_TE / rows).tolist(),
            share=share.tolist(),
            selected=share.sum(dim=1).tolist(),
            effective=_effective(self._weight_TE).tolist(),
            union=self._union / rows,
            zeros=(self._zeros_E / counted_E).tolist(),
            scale=(self._square_E / counted_E).sqrt().tolist(),
            distance=self._distances(),
            owners=[list(owners) for owners in self._plan.owners()],
        )

    def _answers_hook(self, first: int) -> Any:
        def hook(module: nn.Module, given: Any, answers_BEO: Tensor) -> None:
            del module, given
            span = slice(first, first + answers_BEO.shape[1])
            self._zeros_E[span] += (answers_BEO == 0).sum(dim=(0, 2)).cpu()
            self._square_E[span] += answers_BEO.double().square().sum(dim=(0, 2)).cpu()
            self._answers_E[span] += answers_BEO.shape[0] * answers_BEO.shape[2]

        return hook

    def _selectors_hook(self, place: int) -> Any:
        def hook(gate: Gate, given: tuple[Tensor | None, ...], routing: Routing) -> None:
            del routing
            by = given[0]
            distance_BK = gate.selector_distance(None if gate.projection is None or by is None else gate.logits(by))
            if distance_BK is not None:
                total, count = self._distance.get(place, (0.0, 0))
                self._distance[place] = total + float(distance_BK.sum()), count + distance_BK.numel()

        return hook

    def _distances(self) -> list[float | None]:
        distances: list[float | None] = [None] * self._tasks
        for place, (_, _, gate) in enumerate(self._plan.gates()):
            if place in self._distance:
                total, count = self._distance[place]
                for task in gate.tasks:
                    distances[task] = max(distances[task] or 0.0, total / max(count, 1))
        return distances


def union(plan: ArchitecturePlan, routings: tuple[Routing, ...], rows: int) -> Tensor:
    """Which experts at least one gate selects, over all levels, bool [B, E]."""
    union_BE = torch.zeros(rows, plan.experts, dtype=torch.bool)
    for (first, level, _), routing in zip(plan.gates(), routings, strict=True):
        union_BE[:, first : first + level.experts] |= routing.selected_BE.cpu()
    return union_BE


def _column_sums(values_BE: Tensor, rows: int) -> Tensor:
    return values_BE.expand(rows, -1).sum(dim=0, dtype=torch.float64).cpu()


def _effective(weight_TE: Tensor) -> Tensor:
    share_TE = weight_TE / weight_TE.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(share_TE).sum(dim=1).exp()


def _banks(network: Network) -> Iterator[tuple[int, Bank]]:
    first = 0
    for level in network.typed_levels:
        for bank in level.typed_banks:
            yield first, bank
        first += level.plan.experts
