"""The gates of a level in the graph: each one's projection split by part, then its rule as trained.

Shape legend: R requests, N candidate rows, E experts of the level, M experts of one gate, L logits, G gates.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.experts.level import Level, Widen
from models.export_graph.affine import Affine
from models.export_graph.pairing import pair_add
from models.export_graph.split import InputParts, SplitInput, SplitLinear
from models.gates import Gate
from models.gates.always import AlwaysGate


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


class RoutedColumns(NamedTuple):
    """The columns that gates route by, in an input matrix of `inputs` columns with these `parts`.

    `of_request`: all of them lie in the request's part, so that gates answer once for a request.
    """

    columns: list[int]
    parts: InputParts
    inputs: int
    input_norm: nn.Module
    of_request: bool

    def projection(self, affine: Affine) -> SplitLinear:
        """A map of these columns as a map of the input matrix, or of its request part, with the norm folded in."""
        weight_HD = affine.weight_HD.new_zeros(affine.weight_HD.shape[0], self.inputs)
        weight_HD[:, self.columns] = affine.weight_HD
        whole = Affine(weight_HD, affine.bias_H).after(self.input_norm)
        if not self.of_request:
            return SplitLinear(whole, self.parts)
        width = self.parts.request
        return SplitLinear(Affine(whole.weight_HD[:, :width], whole.bias_H), InputParts(width))


class GateGraph(nn.Module):
    """One gate of a level: its answer for every candidate row, over all experts of the level."""

    def __init__(
        self, gate: Gate, widen: Widen, norm: nn.Module, parts: InputParts, columns: RoutedColumns | None
    ) -> None:
        """Copy the gate in evaluation mode; `norm` stands before its projection, or it routes by `columns` alone."""
        super().__init__()
        self.gate, self.widen = copy.deepcopy(gate).eval(), copy.deepcopy(widen)
        self.by_columns = columns is not None
        self.by_request = columns is not None and columns.of_request and gate.projection is not None
        self.projection: SplitLinear | None = None
        if gate.projection is not None:
            affine = Affine.of(gate.projection.weight, gate.projection.bias).after(gate.norm)
            if columns is None:
                self.projection = SplitLinear(affine.after(norm), parts)
            else:
                self.projection = columns.projection(affine)

    def forward(self, x: SplitInput, given: SplitInput, ids_N: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weights and selected set [N, E]; `x` are the gate's streams, `given` the input matrix as it came."""
        logits = None
        if self.projection is not None:
            by = given if self.by_columns else x
            logits = self.projection(SplitInput(given.request_RD, None) if self.by_request else by)
        routing = self.gate.route(logits, ids_N)
        weights, selected = self.widen(routing.weights_BE), self.widen(routing.selected_BE)
        nothing_N1 = given.nothing()
        if not (self.by_request or self.gate.static) or nothing_N1 is None:
            return weights, selected
        nothing_NE = nothing_N1.expand(-1, weights.shape[1])
        # A static gate has one row for all requests.
        request_N = given.request_N if self.by_request else None
        counted = pair_add(selected.to(weights.dtype), nothing_NE, request_N)
        return pair_add(weights, nothing_NE, request_N), counted > 0


class Router(nn.Module):
    """All gates of a level."""

    def __init__(self, level: Level, norm: nn.Module, parts: InputParts, columns: RoutedColumns | None) -> None:
        """Take over the level's gates; see `GateGraph`."""
        super().__init__()
        pairs = zip(level.typed_gates, level.widen, strict=True)
        self.gates = nn.ModuleList(
            GateGraph(gate, widen, norm, parts, columns) for gate, widen in pairs if isinstance(widen, Widen)
        )

    def forward(self, inputs: list[SplitInput], given: SplitInput, ids_N: Tensor | None) -> Routes:
        """Route every candidate row; `inputs` are the streams of each gate, and `given` may bound their experts."""
        answers = [gate(x, given, ids_N) for gate, x in zip(self.gates, inputs, strict=True)]
        if given.most_1 is not None:
            answers = [
                answer if isinstance(gate.gate, AlwaysGate) else strongest(answer[0], answer[1], given.most_1)
                for gate, answer in zip(self.gates, answers, strict=True)
                if isinstance(gate, GateGraph)
            ]
        return Routes([weights for weights, _ in answers], [selected for _, selected in answers])


def strongest(weights_NE: Tensor, selected_NE: Tensor, most_1: Tensor) -> tuple[Tensor, Tensor]:
    """The `most_1` selected experts of the largest weights, which are scaled so that their sum stays.

    >>> selected = torch.tensor([[True, True, False]])
    >>> strongest(torch.tensor([[0.5, 0.3, 0.2]]), selected, torch.tensor([1]))[0].tolist()
    [[0.800000011920929, 0.0, 0.0]]
    """
    chosen_NE = torch.where(selected_NE, weights_NE, -torch.inf)
    place_1 = most_1.clamp(1, weights_NE.shape[1]) - 1
    least_N1 = chosen_NE.sort(dim=1, descending=True).values.index_select(1, place_1)
    kept_NE = selected_NE & (chosen_NE >= least_N1)
    whole_NE, part_NE = (torch.where(mask, weights_NE, 0.0) for mask in (selected_NE, kept_NE))
    scale_N1 = whole_NE.sum(dim=1, keepdim=True) / part_NE.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return part_NE * scale_N1, kept_NE


class StaticWeights(NamedTuple):
    """What static gates come to: the experts that any gate uses, and each gate's weights of them [G, experts]."""

    experts: list[int]
    weights_GE: Tensor


def static_weights(level: Level) -> StaticWeights:
    """Evaluate a level's static gates once and for all."""
    with torch.no_grad():
        routings = [copy.deepcopy(gate).eval()(None) for gate in level.typed_gates]
        pairs = list(zip(routings, level.widen, strict=True))
        weights_GE = torch.cat([widen(routing.weights_BE) for routing, widen in pairs]).cpu()
        used_E = torch.cat([widen(routing.selected_BE) for routing, widen in pairs]).any(dim=0).cpu()
    used = used_E.nonzero().flatten().tolist()
    return StaticWeights(used, weights_GE[:, used])
