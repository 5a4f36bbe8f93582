"""The network over an input matrix: norm, feature interaction, shared layers, levels of experts, and towers.

Shape legend: B rows, D inputs, R columns that gates route by, T tasks.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.schema import TaskSpec
from models.architectures import PlanRequest, in_members
from models.experts.expert_mlp import Experts
from models.experts.level import Level, RoutingInput
from models.experts.task_columns import task_columns
from models.gates import Gate, Routing
from models.heads.towers import Towers
from models.input_layout import FeatureColumns
from models.layers.mlp import Block, mlp
from models.layers.side_columns import SideInput, side_columns
from models.model_config import ModelConfig
from models.sequences import ATTENDED, HistoryContrastConfig
from models.sequences.history_contrast import history_contrast, normed_columns


class NetworkOutput(NamedTuple):
    """Raw outputs [B, T] and each gate's routing over the experts of its level, level by level."""

    outputs_BT: Tensor
    routings: tuple[Routing, ...]
    members: tuple[Tensor, ...] = ()
    """In training, each of several members' own raw outputs [B, T]."""


class Network(nn.Module):
    """One module for every architecture, which differ in their `plan`."""

    columns_R: Tensor
    personal_P: Tensor
    monotone_C: Tensor
    seen_D: Tensor
    streams_SW: Tensor

    def __init__(self, features: list[FeatureColumns], tasks: tuple[TaskSpec, ...], config: ModelConfig) -> None:
        """Build the network over the columns of `features`.

        Raises:
            ConfigError: the parts of the configuration do not fit each other, the features or the tasks.
        """
        super().__init__()
        self.members = config.members
        names = tuple(task.name for task in tasks)
        alone = config.architecture.plan(PlanRequest(names, config.experts, config.gate_scope == "shared"))
        shared = config.bottom if alone.levels else (*config.bottom, *config.expert_widths)
        self.plan = in_members(alone, config.members, own_input=bool(shared))
        self.inputs = sum(len(feature.columns) for feature in features)
        self.input_norm = nn.BatchNorm1d(self.inputs) if config.input_norm == "batch" else nn.Identity()
        self.interaction = config.interaction.build(features)
        columns = _routing_columns(features, config)
        self.register_buffer("columns_R", torch.tensor(columns or [0]), persistent=False)
        self.routes_by_columns = bool(columns)
        width = config.interaction.width(features)
        self.bottom = _shared_layers(width, shared, config)
        streams = [shared[-1]] * config.members if shared else [width]
        self.register_buffer("streams_SW", task_columns(features, len(tasks), self.plan, config), persistent=False)
        if self.plan.own_embeddings:
            streams = [self.streams_SW.shape[1]] * len(self.streams_SW)
        self.levels = nn.ModuleList()
        for plan in self.plan.levels:
            routing_width = len(columns) if columns or config.routing == "static" else None
            self.levels.append(Level(plan, streams, routing_width, config))
            streams = [config.expert_widths[-1]] * len(plan.streams)
        if config.routing_norm == "batch" and not (columns and config.input_norm == "batch"):
            # The input matrix is normed as a whole: gates that read it as it is need no norm of their own.
            direct = config.input_norm == "batch" and not shared and self.interaction is None
            for level in self.typed_levels[int(direct) :]:
                level.normalise_routing()
        self.contrast = config.history_contrast
        self.side = side_columns(features, config.personal_gates, config.monotone)
        self._register_side()
        self.towers = Towers(streams[0], tasks, config, self.side)
        _check_union(self.typed_levels, config)

    def forward(self, x_BD: Tensor, ids_B: Tensor | None = None, masked_BR: Tensor | None = None) -> NetworkOutput:
        """Score rows; `ids_B` is the routing id of gates that hash it.

        `masked_BR` are the columns that gates route by, of histories with some events left out: how far these move the
        gates' weights is added to the penalties.
        """
        # Tables are float32 also where the network is float64.
        normed = self.input_norm(x_BD.to(next(self.parameters()).dtype))
        if self.side.monotone:
            normed = normed * self.seen_D.to(normed.dtype)
        routing = RoutingInput(normed.index_select(1, self.columns_R) if self.routes_by_columns else None, ids_B)
        if self.plan.own_embeddings:
            streams = [normed.index_select(1, columns_W) for columns_W in self.streams_SW]
        else:
            whole = self.bottom(normed if self.interaction is None else self.interaction(normed))
            streams = list(whole.unbind(1)) if isinstance(self.bottom, Experts) else [whole]
        routings: list[Routing] = []
        for level in self.typed_levels:
            streams, level_routings = level(streams, routing)
            routings += _mean_over_members(level_routings, self.members)
        if masked_BR is not None and self.contrast is not None:
            routings[0].penalties["history_contrast"] = self._contrast(x_BD, masked_BR, self.contrast)
        answers = self.towers([streams[s] for s in self.plan.task_streams], self._side(x_BD, normed))
        return NetworkOutput(answers.outputs_BT, tuple(routings), answers.members)

    def graph_norm(self) -> nn.Module:
        """The input's norm, which gives zeros for the columns that the experts do not see."""
        if not self.side.monotone or not isinstance(self.input_norm, nn.BatchNorm1d):
            return self.input_norm
        norm = copy.deepcopy(self.input_norm)
        with torch.no_grad():
            norm.weight.mul_(self.seen_D.to(norm.weight))
            norm.bias.mul_(self.seen_D.to(norm.bias))
        return norm

    def _register_side(self) -> None:
        self.register_buffer("personal_P", torch.tensor(self.side.personal, dtype=torch.int64), persistent=False)
        self.register_buffer("monotone_C", torch.tensor(self.side.monotone, dtype=torch.int64), persistent=False)
        seen_D = torch.ones(self.inputs)
        seen_D[list(self.side.monotone)] = 0.0
        self.register_buffer("seen_D", seen_D, persistent=False)

    def _side(self, x_BD: Tensor, normed_BD: Tensor) -> SideInput | None:
        if not (self.side.personal or self.side.monotone):
            return None
        return SideInput(normed_BD.index_select(1, self.personal_P), x_BD.index_select(1, self.monotone_C))

    def _contrast(self, x_BD: Tensor, masked_BR: Tensor, config: HistoryContrastConfig) -> Tensor:
        """The contrast of a member's gates' logits, both histories being scaled alike; the mean over members."""
        dtype = next(self.parameters()).dtype
        both_BR = (each.to(dtype) for each in (x_BD.index_select(1, self.columns_R), masked_BR))
        scaled = [normed_columns(self.input_norm, self.columns_R, each) for each in both_BR]
        terms = []
        for member in range(self.members):
            gates = [gate for gate in self._gates_of(member) if gate.projection is not None]
            whole, masked = (torch.cat([gate.logits(each) for gate in gates], dim=1) for each in scaled)
            terms.append(history_contrast(whole, masked, config.temperature))
        return config.weight * torch.stack(terms).mean()

    def _gates_of(self, member: int) -> list[Gate]:
        own: list[Gate] = []
        for level in self.typed_levels:
            count = len(level.gates) // self.members
            own += level.typed_gates[member * count : (member + 1) * count]
        return own

    @property
    def bottom_blocks(self) -> list[Block]:
        """The layers before the experts; of several members, those of all side by side."""
        layers = self.bottom.blocks if isinstance(self.bottom, Experts) else self.bottom
        return [block for block in layers.children() if isinstance(block, Block)]

    @property
    def typed_levels(self) -> list[Level]:
        """The levels from the input up."""
        return [level for level in self.levels if isinstance(level, Level)]

    @property
    def typed_gates(self) -> list[Gate]:
        """All gates, level by level, as `NetworkOutput.routings`."""
        return [gate for level in self.typed_levels for gate in level.typed_gates]

    def step(self, global_step: int) -> None:
        """Advance the gates' schedules."""
        for gate in self.typed_gates:
            gate.step(global_step)


def _shared_layers(inputs: int, widths: tuple[int, ...], config: ModelConfig) -> nn.Module:
    """The layers before the experts, those of all members side by side."""
    if config.members == 1 or not widths:
        return mlp(inputs, widths, config.blocks)
    return Experts(inputs, config.members, widths, config.blocks)


def _mean_over_members(routings: tuple[Routing, ...], members: int) -> tuple[Routing, ...]:
    """Penalties weigh beside the members' mean loss as those of one model beside its own."""
    if members == 1:
        return routings
    return tuple(r._replace(penalties={n: each / members for n, each in r.penalties.items()}) for r in routings)


def _routing_columns(features: list[FeatureColumns], config: ModelConfig) -> list[int]:
    if config.routing == "history":
        return _attended_columns(features)
    if config.routing not in {"user", "context"}:
        return []
    columns = [column for feature in features if feature.spec.side == config.routing for column in feature.columns]
    if not columns:
        message = f"model.routing is {config.routing}, but no feature has the side {config.routing}: use all or static"
        raise ConfigError(message)
    return columns


def _attended_columns(features: list[FeatureColumns]) -> list[int]:
    columns = [column for feature in features if feature.spec.name.startswith(ATTENDED) for column in feature.columns]
    if not columns:
        message = "model.routing is history, but no history is attended: name one under model.sequences"
        raise ConfigError(message)
    return columns


def _check_union(levels: list[Level], config: ModelConfig) -> None:
    if config.max_union is None:
        return
    most = sum(min(level.plan.experts, sum(gate.max_selected for gate in level.typed_gates)) for level in levels)
    if most > config.max_union:
        message = (
            f"model.max_union is {config.max_union}, but these gates may select {most} experts for one row (a gate "
            f"that becomes sparse only while it trains counts with all it has): use a top_k gate with a smaller k, "
            "gate_scope shared, or fewer private experts or members"
        )
        raise ConfigError(message)
