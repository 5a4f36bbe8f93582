"""The whole ranker as the module that becomes the graph: lookup, network, towers, answers.

Shape legend: R requests, N candidate rows, T tasks, V rows of the stacked tables, K embedding dim, D columns, E
experts of a gate's level.
"""

import copy

import torch
from torch import Tensor, nn

from contract.graph_names import GATE_OUTPUT, REQUEST_OF
from contract.schema import TaskSpec
from models.export_graph.affine import Affine
from models.export_graph.blocks import folded, folded_mlp
from models.export_graph.exported_network import Form, NetworkGraph
from models.export_graph.lookup import PartLookup, Tensors
from models.export_graph.pairing import pair_add
from models.export_graph.routing import static_weights
from models.export_graph.split import SplitInput
from models.heads.towers import Tower
from models.layers.mlp import Block
from models.ranker import Ranker


class ServingGraph(nn.Module):
    """Answers by task [N] from the graph's inputs by name. `outputs`: what the graph calls what it answers."""

    table_VK: Tensor

    def __init__(self, ranker: Ranker, form: Form) -> None:
        """Rebuild a trained ranker (plain, on the CPU) in one of the mixture's forms."""
        super().__init__()
        config = ranker.config
        table, offsets = stacked_tables(ranker)
        self.register_buffer("table_VK", table)
        self.parts = nn.ModuleList(PartLookup(layout, offsets, config.embedding_dim) for layout in ranker.layouts)
        request_width = ranker.layouts[0].width(config.embedding_dim)
        self.network = NetworkGraph(ranker.network, config, request_width, form)
        self.chain = ranker.network.towers.chain
        towers = zip(ranker.network.towers.towers, ranker.schema.tasks, strict=True)
        self.towers = nn.ModuleList(_TowerGraph(tower, task) for tower, task in towers if isinstance(tower, Tower))
        self.routing_id = ranker.routing_id
        gates = 0 if form == "static" else len(ranker.network.typed_gates)
        self.outputs = [task.name for task in ranker.schema.tasks] + [f"{GATE_OUTPUT}{gate}" for gate in range(gates)]

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """One answer [N] a task, in the schema's order, and behind them each gate's weights [N, E]."""
        request, candidate = (part(self.table_VK, inputs) for part in self.parts)
        given = SplitInput(request, candidate, inputs.get(REQUEST_OF))
        mixtures, weights = self.network(given, self._routing_ids(inputs, candidate))
        answers = [tower(mixture) for tower, mixture in zip(self.towers, mixtures, strict=True)]
        return (*self.chain.multiply(answers), *weights)

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
        return pair_add(ids.unsqueeze(1), nothing_N1, inputs.get(REQUEST_OF)).squeeze(1)


class _TowerGraph(nn.Module):
    """A tower with its answer on the task's own scale."""

    def __init__(self, tower: Tower, task: TaskSpec) -> None:
        super().__init__()
        self.hidden = folded_mlp([block for block in tower.hidden if isinstance(block, Block)])
        head = Affine.of(tower.head.weight, tower.head.bias)
        regression = task.kind == "regression"
        self.head = folded(head.scaled(max(task.spread, 1e-6), task.base_rate) if regression else head)
        self.answer = nn.Identity() if regression else nn.Sequential(copy.deepcopy(tower.calibration), nn.Sigmoid())

    def forward(self, mixture_NO: Tensor) -> Tensor:
        answer_N1: Tensor = self.answer(self.head(self.hidden(mixture_NO)))
        return answer_N1.squeeze(1)


def describe_gates(ranker: Ranker, form: Form) -> list[dict[str, object]]:
    """Each gate's level and tasks, in the order of the graph's outputs; a static one's weights [E], for it has none."""
    tasks = [task.name for task in ranker.schema.tasks]
    found: list[dict[str, object]] = []
    for place, level in enumerate(ranker.network.typed_levels):
        static = static_weights(level) if form == "static" else None
        for number, gate in enumerate(level.plan.gates):
            served: dict[str, object] = {
                "level": place,
                "experts": level.plan.experts,
                "tasks": [tasks[task] for task in gate.tasks],
            }
            if static is not None:
                used = zip(static.kept, static.weights_GE[number].tolist(), strict=True)
                weights = dict.fromkeys(range(level.plan.experts), 0.0) | dict(used)
                served["weights"] = [weights[expert] for expert in range(level.plan.experts)]
            found.append(served)
    return found


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
