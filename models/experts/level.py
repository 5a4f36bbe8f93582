"""One level of an architecture: sets of experts, gates over them, and the mixtures that go on.

Source of the mixture: Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate
Mixture-of-Experts", equation 6.

Shape legend: B rows, D inputs, E experts of the level, M experts of one gate, O outputs of one expert, G gates.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.architectures import ExpertSet, GatePlan, HoMEConfig, LevelPlan
from models.experts.expert_mlp import Experts
from models.experts.grouped_training import Slots, mix_grouped, pays
from models.experts.sparse_training import Execution, mix_sparsely
from models.gates import Gate, Routing, build_gate
from models.gates.always import AlwaysConfig
from models.gates.joint_logits import joint_logits
from models.gates.self_gate import SelfGateConfig
from models.layers.batched_product import stacks
from models.layers.feature_gate import FeatureGate
from models.layers.mlp import BlockConfig
from models.model_config import ModelConfig


class RoutingInput(NamedTuple):
    """What gates route by beside the streams: columns [B, R] for all of them (None: the streams), and ids [B]."""

    columns_BR: Tensor | None
    ids_B: Tensor | None


class LevelOutput(NamedTuple):
    """The output streams [B, O], and each gate's routing over all experts of the level."""

    streams: list[Tensor]
    routings: tuple[Routing, ...]


class Bank(nn.Module):
    """Experts with one input: the joined streams `reads`, by way of a feature gate if there is one."""

    def __init__(
        self,
        reads: tuple[int, ...],
        feature_gate: FeatureGate | None,
        experts: Experts,
        first: int,
        *,
        always: bool = False,
    ) -> None:
        """Hold the level's experts from number `first` on; `always`: every row takes all of them."""
        super().__init__()
        self.reads, self.feature_gate, self.experts, self.first = reads, feature_gate, experts, first
        self.always = always

    def input(self, streams: Sequence[Tensor]) -> Tensor:
        """What the experts read [B, D]."""
        x_BD = joined(streams, self.reads)
        return x_BD if self.feature_gate is None else self.feature_gate(x_BD)


class Widen(nn.Module):
    """A gate's columns [B, M] as columns of the level [B, E], 0 for experts that are none of its own."""

    index_E: Tensor

    def __init__(self, members: list[int], experts: int) -> None:
        """Place the experts `members` among `experts`."""
        super().__init__()
        self.whole = members == list(range(experts))
        place = {expert: column for column, expert in enumerate(members)}
        index = [place.get(expert, len(members)) for expert in range(experts)]
        self.register_buffer("index_E", torch.tensor(index), persistent=False)

    def forward(self, values_BM: Tensor) -> Tensor:
        """Take weights or bools."""
        if self.whole:
            return values_BM
        nothing_B1 = torch.zeros_like(values_BM[:, :1])
        return torch.cat([values_BM, nothing_B1], dim=1).index_select(1, self.index_E)


class Level(nn.Module):
    """The modules of a `LevelPlan`."""

    taught_GE: Tensor

    def __init__(self, plan: LevelPlan, inputs: Sequence[int], routing_width: int | None, config: ModelConfig) -> None:
        """Build over streams of the widths `inputs`; gates route by `routing_width` columns, None: by their streams.

        Raises:
            ConfigError: a gate that cannot be built over so many experts.
        """
        super().__init__()
        self.plan = plan
        blocks = config.blocks._replace(activation="silu", norm="batch") if plan.swish else config.blocks
        self.banks = nn.ModuleList(_banks(plan, inputs, blocks, config))
        self.execution = Execution(config.sparse_training, [bank.experts for bank in self.typed_banks])
        self.gates = nn.ModuleList(
            _gate(gate, plan, _width(inputs, gate.reads) if routing_width is None else routing_width, config)
            for gate in plan.gates
        )
        self.widen = nn.ModuleList(Widen(plan.experts_of(gate), plan.experts) for gate in plan.gates)
        taught = torch.tensor([plan.taught(gate) for gate in plan.gates])
        self.teaches_all = bool(taught.all()) or all(gate.teaches is None for gate in plan.gates)
        self.register_buffer("taught_GE", taught, persistent=False)

    @property
    def typed_gates(self) -> list[Gate]:
        """The gates in the plan's order."""
        return [gate for gate in self.gates if isinstance(gate, Gate)]

    @property
    def typed_banks(self) -> list[Bank]:
        """The banks in the order of their experts."""
        return [bank for bank in self.banks if isinstance(bank, Bank)]

    def normalise_routing(self) -> None:
        """Centre what the gates route by; see `Gate.normalise_input`."""
        for gate in self.typed_gates:
            gate.normalise_input()

    def forward(self, streams: Sequence[Tensor], routing: RoutingInput) -> LevelOutput:
        """Route, run the experts and mix."""
        inputs = [bank.input(streams) for bank in self.typed_banks]
        routings = self.routings(streams, routing)
        experts = [bank.experts for bank in self.typed_banks]
        slots = self.slots() if self.training and self.teaches_all and stacks(inputs[0]) else None
        if slots is not None and self._is_grouped(slots, inputs[0].device.type):
            mixtures_GBO = mix_grouped(experts, inputs, routings, slots)
        elif self.training and self.teaches_all and self._is_sparse(routings, inputs[0]):
            mixtures_GBO = mix_sparsely(experts, inputs, routings)
        else:
            answers = [run(x_BD) for run, x_BD in zip(experts, inputs, strict=True)]
            answers_BEO = answers[0] if len(answers) == 1 else torch.cat(answers, dim=1)
            mixtures_GBO = mix(answers_BEO, routings, None if self.teaches_all else self.taught_GE)
        return LevelOutput(streams_of(self.plan, mixtures_GBO.unbind()), routings)

    def _is_sparse(self, routings: Sequence[Routing], x_BD: Tensor) -> bool:
        # What was selected is data, and a card would stand still until the host knows it: there only if asked for.
        return not (stacks(x_BD) and self.execution.mode == "auto") and self.execution.is_sparse(routings, len(x_BD))

    def _is_grouped(self, slots: Sequence[Sequence[Slots]], device: str) -> bool:
        execution = self.execution
        return (
            execution.mode != "off"
            and execution.possible
            and pays([b.experts for b in self.typed_banks], slots, device)
        )

    def selects_rows(self, device: str) -> bool:
        """Whether a step of training there looks up each expert's rows because it is told to, for which a card waits.

        To be asked under the step's autocast, which decides on the grouped product.
        """
        return self.execution.mode == "on" and self.teaches_all and not self._is_grouped(self.slots(), device)

    def slots(self) -> list[list[Slots]]:
        """How many experts of each bank a row may take by each gate."""
        slots = []
        for bank in self.typed_banks:
            span, own = range(bank.first, bank.first + bank.experts.count), []
            for number, (plan, gate) in enumerate(zip(self.plan.gates, self.typed_gates, strict=True)):
                count = sum(expert in span for expert in self.plan.experts_of(plan))
                if count:
                    own.append(Slots(number, min(count, gate.max_selected)))
            slots.append(own)
        return slots

    def routings(self, streams: Sequence[Tensor], routing: RoutingInput) -> tuple[Routing, ...]:
        """What each gate selects, over all experts of the level; on a card their logits are one product."""
        gates, own = self.typed_gates, routing.columns_BR
        by = [joined(streams, plan.reads) if own is None else own for plan in self.plan.gates]
        together = stacks(by[0]) and len(gates) > 1 and all(each is by[0] for each in by)
        joint = joint_logits(gates, by[0]) if together else None
        # Called as modules either way, so that who watches the gates sees them.
        logits: Sequence[Tensor | None] = [None] * len(gates) if joint is None else joint
        answers = [gate(each, routing.ids_B, known) for gate, each, known in zip(gates, by, logits, strict=True)]
        return tuple(
            Routing(widen(weights_BM), widen(selected_BM), penalties)
            for (weights_BM, selected_BM, penalties), widen in zip(answers, self.widen, strict=True)
        )


def mix(answers_BEO: Tensor, routings: tuple[Routing, ...], taught_GE: Tensor | None = None) -> Tensor:
    """Weigh the experts' answers by each gate (equation 6): mixtures [G, B, O].

    With `taught_GE`, no gradient of a gate's mixture goes back to the other experts.
    """
    rows = answers_BEO.shape[0]
    weights_BGE = torch.stack([r.weights_BE.expand(rows, -1) for r in routings], dim=1).to(answers_BEO.dtype)
    if taught_GE is None or not answers_BEO.requires_grad:
        return torch.bmm(weights_BGE, answers_BEO).transpose(0, 1)
    own_BGE = weights_BGE * taught_GE.to(weights_BGE.dtype)
    own_BGO = torch.bmm(own_BGE, answers_BEO)
    return (own_BGO + torch.bmm(weights_BGE - own_BGE, answers_BEO.detach())).transpose(0, 1)


def streams_of(plan: LevelPlan, mixtures: Sequence[Tensor]) -> list[Tensor]:
    """The output streams out of the gates' mixtures."""
    streams = []
    for first, *others in plan.streams:
        stream = mixtures[first]
        for gate in others:
            stream = stream + mixtures[gate]
        streams.append(stream)
    return streams


def joined(streams: Sequence[Tensor], reads: tuple[int, ...]) -> Tensor:
    """Some streams side by side."""
    return streams[reads[0]] if len(reads) == 1 else torch.cat([streams[s] for s in reads], dim=1)


def _banks(plan: LevelPlan, inputs: Sequence[int], blocks: BlockConfig, config: ModelConfig) -> list[Bank]:
    # Neighbouring sets with one input share a bank, so that their first layers are one Gemm.
    def key(place_and_set: tuple[int, ExpertSet]) -> tuple[tuple[int, ...], int, bool]:
        place, each = place_and_set
        return each.reads, place if each.feature_gate else -1, each.always

    banks, first = [], 0
    for (reads, gated, always), group in groupby(enumerate(plan.sets), key):
        count, width = sum(each.experts for _, each in group), _width(inputs, reads)
        gate = _feature_gate(width, config) if gated >= 0 else None
        experts = Experts(width, count, config.expert_widths, blocks)
        banks.append(Bank(reads, gate, experts, first, always=always))
        first += count
    return banks


def _feature_gate(width: int, config: ModelConfig) -> FeatureGate:
    home = config.architecture if isinstance(config.architecture, HoMEConfig) else HoMEConfig()
    return FeatureGate(width, home.feature_rank, home.feature_gates)


def _gate(plan: GatePlan, level: LevelPlan, routing_width: int, config: ModelConfig) -> Gate:
    count = len(level.experts_of(plan))
    if plan.kind == "self":
        return SelfGateConfig().build(count, routing_width)
    if plan.kind == "always":
        return AlwaysConfig().build(count, routing_width)
    return build_gate(config.gate, count, routing_width)


def _width(inputs: Sequence[int], reads: tuple[int, ...]) -> int:
    return sum(inputs[stream] for stream in reads)
