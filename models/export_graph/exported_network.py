"""The network in the graph: feature interaction, shared layers and levels, the request's share computed once.

As long as a layer reads the input matrix itself, its map is split by part; behind an interaction, shared layers, a
feature gate or a level, nothing is left to the request.

Shape legend: R requests, N candidate rows, D columns, O outputs of one expert.
"""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from contract.errors import ExportError
from models.experts.expert_mlp import Experts
from models.experts.level import Level, streams_of
from models.export_graph.blocks import ScaledInput, Tail, affine_of, folded_mlp
from models.export_graph.card_mixture import GroupedMixture, StackedExperts, WideMixture
from models.export_graph.mixture import DenseMixture, SparseMixture, StaticMixture
from models.export_graph.routing import RoutedColumns, Router, static_weights
from models.export_graph.split import InputParts, SplitInput, SplitLinear, rows_of
from models.export_graph.whole_level import first_level
from models.model_config import ModelConfig
from models.network import Network

Form = Literal["dense", "sparse", "static", "wide", "moe"]
"""`static`, `dense` and `sparse` are for processors, `static`, `wide` and `moe` for cards."""


class Routed(NamedTuple):
    """Streams [N, O], and each gate's weights [N, E] of its level's experts (none of static gates)."""

    streams: list[Tensor]
    weights: list[Tensor]


class NetworkGraph(nn.Module):
    """From the input matrix by parts to what each task's tower reads."""

    def __init__(self, network: Network, config: ModelConfig, parts: InputParts, form: Form) -> None:
        """Rebuild a trained network in one of the mixture's forms.

        Raises:
            ExportError: items are to be prepared, but the first layer reads more than sums of features.
        """
        super().__init__()
        norm: nn.Module = network.graph_norm()
        columns = None
        if network.routes_by_columns:
            of_request = config.routing != "history"
            columns = RoutedColumns(network.columns_R.tolist(), parts, network.inputs, norm, of_request)
        has_bottom = len(network.bottom_blocks) > 0
        gated = not has_bottom and any(each.feature_gate for level in network.plan.levels[:1] for each in level.sets)
        self.whole: _Whole | None = None
        if network.interaction is not None or gated:
            if parts.items is not None:
                what = "the interaction" if network.interaction is not None else "the feature gate"
                message = f"{what} reads all features of a row at once, so no share of it can be prepared for an item"
                raise ExportError(message)
            self.whole = _Whole(network)
            norm, parts = nn.Identity(), InputParts()
        self.bottom: _Bottom | _MembersBottom | None = None
        if has_bottom:
            several = isinstance(network.bottom, Experts)
            self.bottom = (_MembersBottom if several else _Bottom)(network, norm, parts)
            norm, parts = nn.Identity(), InputParts()
        self.levels = nn.ModuleList()
        levels = network.typed_levels
        for level in [first_level(network), *levels[1:]] if levels else []:
            self.levels.append(LevelGraph(level, config, form, _NetworkInput(norm, parts, columns)))
            norm, parts = nn.Identity(), InputParts()
        self.task_streams = network.plan.task_streams

    def forward(self, given: SplitInput, ids_N: Tensor | None) -> Routed:
        """What each task's tower reads, and the weights of all gates, level by level."""
        x = given if self.whole is None else SplitInput(None, self.whole(given))
        streams = [x] if self.bottom is None else [SplitInput(None, stream) for stream in self.bottom(x)]
        weights: list[Tensor] = []
        for level in self.levels:
            mixtures, routed = level(streams, given, ids_N)
            streams = [SplitInput(None, stream) for stream in mixtures]
            weights += routed
        return Routed([rows_of(streams[s]) for s in self.task_streams], weights)


class _NetworkInput:
    """What stands before a level's first layers."""

    def __init__(self, norm: nn.Module, parts: InputParts, columns: RoutedColumns | None) -> None:
        self.norm, self.parts, self.columns = norm, parts, columns


class LevelGraph(nn.Module):
    """One level: routing, experts and mixtures, in one of the forms."""

    def __init__(self, level: Level, config: ModelConfig, form: Form, before: _NetworkInput) -> None:
        """Take over gates and experts; `before` says what their first layers read."""
        super().__init__()
        self.plan, self.reads = level.plan, [bank.reads for bank in level.typed_banks]
        self.feature_gates = nn.ModuleList(
            nn.Identity() if bank.feature_gate is None else copy.deepcopy(bank.feature_gate)
            for bank in level.typed_banks
        )
        self.gated = [bank.feature_gate is not None for bank in level.typed_banks]
        banks, norm, parts = level.typed_banks, before.norm, before.parts
        self.static: StaticMixture | None = None
        if form == "static":
            self.static = StaticMixture(banks, static_weights(level), norm, parts)
            return
        self.router = Router(level, norm, parts, before.columns)
        self.mixture = _mixture(level, config, form, before)

    def forward(self, streams: Sequence[SplitInput], given: SplitInput, ids_N: Tensor | None) -> Routed:
        """The output streams and the gates' weights; `given` is the input matrix as it came."""
        inputs = []
        for gate, reads, gated in zip(self.feature_gates, self.reads, self.gated, strict=True):
            x = _joined(streams, reads)
            inputs.append(SplitInput(None, gate(rows_of(x))) if gated else x)
        if self.static is not None:
            return Routed(streams_of(self.plan, self.static(inputs)), [])
        routes = self.router([_joined(streams, gate.reads) for gate in self.plan.gates], given, ids_N)
        return Routed(streams_of(self.plan, self.mixture(inputs, routes)), routes.weights)


def _mixture(level: Level, config: ModelConfig, form: Form, before: _NetworkInput) -> nn.Module:
    banks, norm, parts = level.typed_banks, before.norm, before.parts
    if form == "sparse":
        activation = "silu" if level.plan.swish else config.activation
        return SparseMixture(level, norm, parts, activation)
    if form == "moe":
        return GroupedMixture(level, norm, parts)
    return WideMixture(banks, norm, parts) if form == "wide" else DenseMixture(banks, norm, parts)


class _Whole(nn.Module):
    """The normed input matrix, candidate row by candidate row, and the interaction of its features."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.norm = ScaledInput(network.graph_norm(), network.inputs)
        self.interaction = nn.Identity() if network.interaction is None else copy.deepcopy(network.interaction)

    def forward(self, given: SplitInput) -> Tensor:
        answer: Tensor = self.interaction(self.norm(rows_of(given)))
        return answer


class _Bottom(nn.Module):
    """The shared layers, the first of them split by part."""

    def __init__(self, network: Network, norm: nn.Module, parts: InputParts) -> None:
        super().__init__()
        blocks = network.bottom_blocks
        self.first = SplitLinear(affine_of(blocks[0]).after(norm), parts)
        self.tail = Tail(blocks[0])
        self.rest = folded_mlp(blocks[1:])

    def forward(self, x: SplitInput) -> list[Tensor]:
        return [self.rest(self.tail(self.first(x)))]


class _MembersBottom(nn.Module):
    """The shared layers of every member, the first of all of them as one."""

    def __init__(self, network: Network, norm: nn.Module, parts: InputParts) -> None:
        super().__init__()
        assert isinstance(network.bottom, Experts)  # noqa: S101 several members' are; this tells the type checker
        self.members = StackedExperts(network.bottom, norm, parts)

    def forward(self, x: SplitInput) -> list[Tensor]:
        return list(self.members(x).unbind())


def _joined(streams: Sequence[SplitInput], reads: tuple[int, ...]) -> SplitInput:
    if len(reads) == 1:
        return streams[reads[0]]
    return SplitInput(None, torch.cat([rows_of(streams[s]) for s in reads], dim=1))
