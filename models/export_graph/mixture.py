"""The mixture of a level's experts in the graph, in three forms with equal answers.

Static: constant weights, unused experts deleted. Dense: every expert for every row. Sparse: each expert for the rows
that selected it (`models.export_graph.sparse_experts`), the answers of several gates' experts brought back to row order
by an inverse permutation.

Shape legend: N candidate rows, E experts, O outputs of one expert, G gates, M rows of all experts, S slots (experts of
a row).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.experts.expert_mlp import Experts
from models.experts.level import Bank, Level
from models.export_graph.affine import join
from models.export_graph.blocks import Folded, expert_affines, expert_block, expert_tail
from models.export_graph.routing import Routes, StaticWeights
from models.export_graph.sparse_experts import SparseExperts
from models.export_graph.split import InputParts, SplitInput, SplitLinear
from models.gates.always import AlwaysGate
from models.layers.mlp import Activation


class ExpertNetworks(nn.Module):
    """Experts of one bank with folded norms: first layers split by part, the rest as one network per expert."""

    def __init__(self, experts: Experts, kept: list[int], norm: nn.Module, parts: InputParts) -> None:
        """Take the `kept` experts, at least one; `norm` stands before their first layers."""
        super().__init__()
        first = [affine.after(norm) for affine in expert_affines(experts, 0)]
        self.first = SplitLinear(join([first[e] for e in kept]), parts)
        self.hidden = first[0].bias_H.shape[0]
        self.rest = nn.ModuleList(_rest(experts, e) for e in kept)

    def forward(self, x: SplitInput) -> list[Tensor]:
        """Every expert's answers for every row, [N, O] each."""
        hidden = self.first(x).split(self.hidden, dim=1)
        return [network(h) for network, h in zip(self.rest, hidden, strict=True)]


class StaticMixture(nn.Module):
    """Constant weights: a sum of the experts that each gate uses, in the order of the experts."""

    weights_GE: Tensor

    def __init__(self, banks: list[Bank], weights: StaticWeights, norm: nn.Module, parts: InputParts) -> None:
        """Keep the experts that `weights` names."""
        super().__init__()
        self.places: list[int] = []
        self.networks = nn.ModuleList()
        for place, bank in enumerate(banks):
            count = bank.experts.count
            used_experts = [e - bank.first for e in weights.experts if bank.first <= e < bank.first + count]
            if used_experts:
                self.places.append(place)
                self.networks.append(ExpertNetworks(bank.experts, used_experts, norm, parts))
        self.register_buffer("weights_GE", weights.weights_GE)
        self.used = [[e for e, w in enumerate(row) if w != 0.0] for row in weights.weights_GE.tolist()]

    def forward(self, inputs: list[SplitInput]) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        pairs = zip(self.networks, self.places, strict=True)
        answers = [answer for network, place in pairs for answer in network(inputs[place])]
        mixtures = []
        for weights_E, used in zip(self.weights_GE, self.used, strict=True):
            mixture = weights_E[used[0]] * answers[used[0]]
            for e in used[1:]:
                mixture = mixture + weights_E[e] * answers[e]
            mixtures.append(mixture)
        return mixtures


class DenseMixture(nn.Module):
    """Every expert for every row."""

    def __init__(self, banks: list[Bank], norm: nn.Module, parts: InputParts) -> None:
        """Take all experts of all banks."""
        super().__init__()
        self.networks = nn.ModuleList(
            ExpertNetworks(bank.experts, list(range(bank.experts.count)), norm, parts) for bank in banks
        )

    def forward(self, inputs: list[SplitInput], routes: Routes) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        answers = [answer for network, x in zip(self.networks, inputs, strict=True) for answer in network(x)]
        weights_NGE = torch.stack(routes.weights, dim=1)
        return list((weights_NGE @ torch.stack(answers, dim=1)).unbind(1))


class SparseMixture(nn.Module):
    """Each expert only for the rows that selected it."""

    def __init__(self, level: Level, norm: nn.Module, parts: InputParts, activation: Activation) -> None:
        """Take all experts; a gate that promises no bound on its selection has it counted again in each run."""
        super().__init__()
        banks, gates = level.typed_banks, level.typed_gates
        routed = [bank for bank in banks if not bank.always]
        self.experts = nn.ModuleList(SparseExperts(bank.experts, norm, parts, activation) for bank in routed)
        self.counts = [bank.experts.count for bank in routed]
        # What every row takes stands last in the plan, and needs no gathering.
        self.always = nn.ModuleList(
            ExpertNetworks(bank.experts, list(range(bank.experts.count)), norm, parts) for bank in banks if bank.always
        )
        # Of a pruned level, fewer experts may be left than a gate selects.
        most = sum(self.counts)
        self.slots = [None if gate.selectors < gate.max_selected else min(gate.max_selected, most) for gate in gates]
        # Of each gate that adds what every row takes, its own experts, counted from the first of these.
        self.added = [
            [expert - most for expert in level.plan.experts_of(plan)] if isinstance(gate, AlwaysGate) else None
            for plan, gate in zip(level.plan.gates, gates, strict=True)
        ]

    def forward(self, inputs: list[SplitInput], routes: Routes) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        routed = sum(self.counts)
        union_NE = routes.union()[:, :routed]
        if len(self.experts) == len(routes.weights) == 1 and not self.always:
            return [self.experts[0](inputs[0], union_NE, routes.weights[0])]
        unions = union_NE.split(self.counts, dim=1)
        pairs = zip(self.experts, inputs[: len(self.counts)], unions, strict=True)
        first, *others = [run(x, u) for run, x, u in pairs]
        # One row of zeros, the first bank's, serves all.
        answers_MO = torch.cat([first, *(answers[1:] for answers in others)]) if others else first
        positions_NE = _positions(union_NE)
        own = zip(self.always, inputs[len(self.counts) :], strict=True)
        always = [answer for run, x in own for answer in run(x)]
        gates = zip(routes.weights, routes.selected, self.slots, self.added, strict=True)
        return [
            self._combine(answers_MO, positions_NE, weights[:, :routed], selected[:, :routed], slots)
            if added is None
            else _total([always[place] for place in added])
            for weights, selected, slots, added in gates
        ]

    def _combine(
        self, answers_MO: Tensor, positions_NE: Tensor, weights_NE: Tensor, selected_NE: Tensor, slots: int | None
    ) -> Tensor:
        most = most_selected(selected_NE) if slots is None else slots
        top_NS, experts_NS = weights_NE.topk(most, dim=1)
        positions_NS = positions_NE.gather(1, experts_NS)
        return (functional.embedding(positions_NS, answers_MO) * top_NS.unsqueeze(2)).sum(dim=1)


def _total(answers: list[Tensor]) -> Tensor:
    return sum(answers[1:], answers[0])


def most_selected(selected_NE: Tensor) -> int:
    """The most experts that any row selects, a number of the run and not of the trace."""
    # No int() here, which would ask the tracer for the value: while tracing this is a symbol.
    most: int = selected_NE.sum(dim=1).max().item()  # type: ignore[assignment]
    torch._check(most >= 0)  # noqa: SLF001 the documented way to bound a size that data decides
    torch._check(most <= selected_NE.shape[1])  # noqa: SLF001 the same
    return most


def _positions(union_NE: Tensor) -> Tensor:
    # Where the answer of (row, expert) stands among all, which lie expert by expert after a row of zeros; that one
    # is the answer of an expert that the row did not select.
    union_EN = union_NE.t().to(torch.int64)
    counted = union_EN.reshape(-1).cumsum(0).reshape(union_EN.shape)
    return (counted * union_EN).t()


def _rest(experts: Experts, expert: int) -> nn.Sequential:
    modules: list[nn.Module] = [expert_tail(experts, expert, 0)]
    for layer in range(1, len(experts.blocks)):
        affine, tail = expert_affines(experts, layer)[expert], expert_tail(experts, expert, layer)
        modules.append(Folded(affine, tail, residual=expert_block(experts, layer).residual))
    return nn.Sequential(*modules)
