"""The mixture of experts in the graph, in three forms with equal answers.

Static: constant weights, unused experts deleted. Dense: every expert for every row. Sparse: each expert for the rows
that selected it (`models.export.sparse`), the answers brought back to row order by an inverse permutation.

Shape legend: N candidate rows, E experts, O outputs of one expert, G gates, n rows of an expert, M rows of all experts,
S slots (experts of a row).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.experts import Experts
from models.export.affine import join
from models.export.blocks import expert_affines, expert_tail, folded
from models.export.routing import Router, Routes, StaticWeights
from models.export.sparse import SparseExperts
from models.export.split import SplitInput, SplitLinear


class ExpertNetworks(nn.Module):
    """The experts with folded norms: first layers split by part, the rest one network an expert."""

    def __init__(self, experts: Experts, kept: list[int], input_norm: nn.Module, request_width: int) -> None:
        """Take the `kept` experts; `input_norm` stands before their first layers."""
        super().__init__()
        first = [affine.after(input_norm) for affine in expert_affines(experts, 0)]
        self.first = SplitLinear(join([first[e] for e in kept]), request_width)
        self.hidden = first[0].bias_H.shape[0]
        self.rest = nn.ModuleList(_rest(experts, e) for e in kept)
        self.outputs = experts.outputs

    def all_rows(self, x: SplitInput) -> list[Tensor]:
        """Every expert's answers for every row, [N, O] each."""
        hidden = self.first(x).split(self.hidden, dim=1)
        return [network(h) for network, h in zip(self.rest, hidden, strict=True)]


class StaticMixture(nn.Module):
    """Constant weights: a sum of the experts that each gate uses, in the order of the experts."""

    weights_GE: Tensor

    def __init__(self, networks: ExpertNetworks, weights: StaticWeights) -> None:
        """Mix `networks`, which hold the kept experts only."""
        super().__init__()
        self.networks = networks
        self.register_buffer("weights_GE", weights.weights_GE)
        self.used = [[e for e, w in enumerate(row) if w != 0.0] for row in weights.weights_GE.tolist()]

    def forward(self, x: SplitInput, ids_N: Tensor | None) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        del ids_N
        answers = self.networks.all_rows(x)
        mixtures = []
        for weights_E, used in zip(self.weights_GE, self.used, strict=True):
            mixture = weights_E[used[0]] * answers[used[0]]
            for e in used[1:]:
                mixture = mixture + weights_E[e] * answers[e]
            mixtures.append(mixture)
        return mixtures


class DenseMixture(nn.Module):
    """Every expert for every row."""

    def __init__(self, networks: ExpertNetworks, router: Router) -> None:
        """Mix all experts by the gates of `router`."""
        super().__init__()
        self.networks, self.router = networks, router

    def forward(self, x: SplitInput, ids_N: Tensor | None) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        answers_NEO = torch.stack(self.networks.all_rows(x), dim=1)
        weights_NGE = torch.stack(self.router(x, ids_N).weights, dim=1)
        return list((weights_NGE @ answers_NEO).unbind(1))


class SparseMixture(nn.Module):
    """Each expert only for the rows that selected it."""

    def __init__(self, experts: SparseExperts, router: Router, slots: int | None) -> None:
        """`slots` is how many experts a row can select at most; None counts them anew in each run."""
        super().__init__()
        self.experts, self.router, self.slots = experts, router, slots

    def forward(self, x: SplitInput, ids_N: Tensor | None) -> list[Tensor]:
        """Each gate's mixture [N, O]."""
        routes: Routes = self.router(x, ids_N)
        union_NE = routes.union()
        answers_MO = self.experts(x, union_NE)
        positions_NE = _positions(union_NE)
        gates = zip(routes.weights, routes.selected, strict=True)
        return [self._combine(answers_MO, positions_NE, w, selected) for w, selected in gates]

    def _combine(self, answers_MO: Tensor, positions_NE: Tensor, weights_NE: Tensor, selected_NE: Tensor) -> Tensor:
        slots = most_selected(selected_NE) if self.slots is None else self.slots
        top_NS, experts_NS = weights_NE.topk(slots, dim=1)
        positions_NS = positions_NE.gather(1, experts_NS)
        return (functional.embedding(positions_NS, answers_MO) * top_NS.unsqueeze(2)).sum(dim=1)


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
        modules += [folded(expert_affines(experts, layer)[expert]), expert_tail(experts, expert, layer)]
    return nn.Sequential(*modules)
