"""The gates in the graph: each one's projection split by part, then its rule as trained.

Shape legend: N candidate rows, E experts, G gates (one a task, or one for all).
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.export.affine import Affine
from models.export.split import SplitInput, SplitLinear
from models.gates import Gate


class Routes(NamedTuple):
    """Every gate's weights and selected set, [N, E] each."""

    weights: list[Tensor]
    selected: list[Tensor]

    def union(self) -> Tensor:
        """Which experts at least one gate selects, bool [N, E]."""
        union = self.selected[0]
        for selected in self.selected[1:]:
            union = union | selected
        return union


class Router(nn.Module):
    """All gates that route row by row."""

    def __init__(self, gates: list[Gate], input_norm: nn.Module, request_width: int) -> None:
        """Copy the gates in evaluation mode; `input_norm` stands before their projections."""
        super().__init__()
        self.gates = nn.ModuleList(copy.deepcopy(gate).eval() for gate in gates)
        self.projections = nn.ModuleList(
            nn.Identity()
            if gate.projection is None
            else SplitLinear(Affine.of(gate.projection.weight, gate.projection.bias).after(input_norm), request_width)
            for gate in gates
        )

    def forward(self, x: SplitInput, ids_N: Tensor | None) -> Routes:
        """Route every candidate row."""
        weights, selected = [], []
        for gate, projection in zip(self.gates, self.projections, strict=True):
            assert isinstance(gate, Gate)  # noqa: S101 the list holds gates; this tells the type checker
            routing = gate.route(None if gate.needs_ids else projection(x), ids_N)
            weights.append(routing.weights_BE)
            selected.append(routing.selected_BE)
        return Routes(weights, selected)


class StaticWeights(NamedTuple):
    """What static gates come to: the experts that any gate uses, and each gate's weights of them [G, kept]."""

    kept: list[int]
    weights_GE: Tensor


def static_weights(gates: list[Gate]) -> StaticWeights:
    """Evaluate static gates once and for all."""
    with torch.no_grad():
        routings = [copy.deepcopy(gate).eval()(None) for gate in gates]
    weights_GE = torch.cat([routing.weights_BE for routing in routings]).cpu()
    used_E = torch.cat([routing.selected_BE for routing in routings]).any(dim=0).cpu()
    kept = used_E.nonzero().flatten().tolist()
    return StaticWeights(kept, weights_GE[:, kept])
