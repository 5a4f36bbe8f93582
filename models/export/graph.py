"""The whole ranker as the module that becomes the graph: lookup, split first layer, mixture, towers, answers.

Shape legend: R requests, N candidate rows, T tasks, V rows of the stacked tables, K embedding dim, D columns.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from features.schema import TaskSpec
from models.export.affine import Affine
from models.export.blocks import Tail, affine_of, folded, folded_mlp
from models.export.lookup import PartLookup, Tensors
from models.export.mixture import DenseMixture, ExpertNetworks, SparseMixture, StaticMixture
from models.export.pairing import pair_add
from models.export.routing import Router, static_weights
from models.export.sparse import SparseExperts
from models.export.split import SplitInput, SplitLinear
from models.mlp import Block
from models.ranker import Ranker
from models.towers import Tower

Form = Literal["dense", "sparse", "static"]


class ServingGraph(nn.Module):
    """Answers by task [N] from the graph's inputs by name."""

    table_VK: Tensor

    def __init__(self, ranker: Ranker, form: Form) -> None:
        """Rebuild a trained ranker (plain, on the CPU) in one of the mixture's forms."""
        super().__init__()
        network, config = ranker.network, ranker.config
        table, offsets = stacked_tables(ranker)
        self.register_buffer("table_VK", table)
        self.parts = nn.ModuleList(PartLookup(layout, offsets, config.embedding_dim) for layout in ranker.layouts)
        request_width = ranker.layouts[0].width(config.embedding_dim)
        bottom = [block for block in network.bottom if isinstance(block, Block)]
        self.bottom = _Bottom(bottom, network.input_norm, request_width) if bottom else None
        input_norm: nn.Module = nn.Identity() if bottom else network.input_norm
        self.mixture = _mixture(ranker, form, input_norm, 0 if bottom else request_width)
        towers = zip(network.towers.towers, ranker.schema.tasks, strict=True)
        self.towers = nn.ModuleList(_TowerGraph(tower, task) for tower, task in towers if isinstance(tower, Tower))
        self.routing_id = ranker.routing_id

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """One answer [N] a task, in the schema's order."""
        request, candidate = (part(self.table_VK, inputs) for part in self.parts)
        x = SplitInput(request, candidate)
        if self.bottom is not None:
            x = self.bottom(x)
        mixtures = self.mixture(x, self._routing_ids(inputs, candidate))
        shared = len(mixtures) == 1
        return tuple(tower(mixtures[0 if shared else t]) for t, tower in enumerate(self.towers))

    def _routing_ids(self, inputs: Tensors, candidate: Tensor | None) -> Tensor | None:
        if self.routing_id is None:
            return None
        part, column = self.routing_id
        lookup = self.parts[part]
        assert isinstance(lookup, PartLookup)  # noqa: S101 the list holds lookups; this tells the type checker
        ids = lookup.known_ids(inputs)[:, column]
        if part == 1 or candidate is None:
            return ids
        nothing_N1 = torch.zeros_like(candidate[:, :1], dtype=torch.int64)
        return pair_add(ids.unsqueeze(1), nothing_N1).squeeze(1)


class _Bottom(nn.Module):
    """The shared layers, the first of them split by part."""

    def __init__(self, blocks: list[Block], input_norm: nn.Module, request_width: int) -> None:
        super().__init__()
        self.first = SplitLinear(affine_of(blocks[0]).after(input_norm), request_width)
        self.tail = Tail(blocks[0])
        self.rest = folded_mlp(blocks[1:])

    def forward(self, x: SplitInput) -> SplitInput:
        """Each candidate row's shared representation; nothing is left to the request."""
        return SplitInput(None, self.rest(self.tail(self.first(x))))


class _TowerGraph(nn.Module):
    """A tower with its answer on the task's own scale."""

    def __init__(self, tower: Tower, task: TaskSpec) -> None:
        super().__init__()
        self.hidden = folded_mlp([block for block in tower.hidden if isinstance(block, Block)])
        head = Affine.of(tower.head.weight, tower.head.bias)
        regression = task.kind == "regression"
        self.head = folded(head.scaled(max(task.spread, 1e-6), task.base_rate) if regression else head)
        self.answer = nn.Identity() if regression else nn.Sigmoid()

    def forward(self, mixture_NO: Tensor) -> Tensor:
        answer_N1: Tensor = self.answer(self.head(self.hidden(mixture_NO)))
        return answer_N1.squeeze(1)


def _mixture(ranker: Ranker, form: Form, input_norm: nn.Module, request_width: int) -> nn.Module:
    network = ranker.network
    gates = network.typed_gates
    if form == "static":
        weights = static_weights(gates)
        return StaticMixture(ExpertNetworks(network.experts, weights.kept, input_norm, request_width), weights)
    router = Router(gates, input_norm, request_width)
    if form == "dense":
        everyone = list(range(network.experts.count))
        return DenseMixture(ExpertNetworks(network.experts, everyone, input_norm, request_width), router)
    experts = SparseExperts(network.experts, input_norm, request_width, ranker.config.activation)
    guaranteed = max(gate.max_selected for gate in gates)
    return SparseMixture(experts, router, guaranteed if guaranteed < network.experts.count else None)


def stacked_tables(ranker: Ranker) -> tuple[Tensor, dict[str, int]]:
    """All embedding tables on top of each other, a row of zeros at the end [V, K]; the first row of each by name."""
    dim = ranker.config.embedding_dim
    offsets: dict[str, int] = {}
    tables: list[Tensor] = []
    total = 0
    weights = ranker.table_weights()
    for name, rows in ranker.schema.tables().items():
        offsets[name] = total
        tables.append(weights[name].detach().cpu())
        total += rows
    return torch.cat([*tables, torch.zeros(1, dim)]), offsets
