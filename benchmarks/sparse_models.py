"""The models of the sparse graph's benchmark, and the graph that each is measured against.

That one, the dense tiled graph, is what an exporter without sparsity writes: every expert for every row, the user's
columns repeated for each candidate, no layer split.

Shape legend: N candidate rows.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema, TaskSpec
from models.export.onnx_file import write_onnx
from models.export_graph.exported_network import Form, NetworkGraph
from models.export_graph.exported_towers import SeparateTowers
from models.export_graph.lookup import Tensors
from models.export_graph.serving_graph import ServingGraph
from models.export_graph.side_graph import SideValues
from models.export_graph.split import InputParts, SplitInput, rows_of
from models.model_config import ModelConfig
from models.ranker import Ranker
from serving.graph.batched_graph import joined

INPUTS, EXPERT_WIDTHS = 960, (256, 128)
NARROW_INPUTS, NARROW_WIDTHS = 256, (128, 64)
FEATURES, DIM, ROWS_A_TABLE = 30, 32, 1000
Routing = Literal["all", "static"]


class TiledGraph(ServingGraph):
    """The dense graph without the split; its request inputs have as many rows as there are candidates."""

    def __init__(self, ranker: Ranker) -> None:
        """Rebuild a ranker whose gates read what its experts read."""
        super().__init__(ranker, "dense")
        self.towers = SeparateTowers(ranker.network.towers, ranker.schema.tasks)
        self.network = NetworkGraph(ranker.network, ranker.config, InputParts(), "dense")

    def forward(self, inputs: Tensors) -> tuple[Tensor, ...]:
        """One answer [N] a task, and behind them each gate's weights."""
        tables = self.tables()
        request, candidate = (part(tables, inputs) for part in self.parts)
        joined = SplitInput(None, rows_of(SplitInput(request, candidate)))
        mixtures, weights = self.network(joined, self._routing_ids(inputs, SplitInput(request, candidate)))
        return (*self.chain.multiply(self.towers(mixtures, SideValues(None, None))), *weights)


def layer(experts: int, *, narrow: bool = False) -> Ranker:
    """A mixture layer alone: one top-2 gate over given columns, and a head for each row's answer."""
    inputs = NARROW_INPUTS if narrow else INPUTS
    features = tuple(DenseSpec(name=f"x{i}", side="item", encoding="standardise") for i in range(inputs))
    widths = NARROW_WIDTHS if narrow else EXPERT_WIDTHS
    return _ranker(features, tasks=1, experts=experts, gate=2, scope="shared", routing="all", towers=(), widths=widths)


def ranker(k: int, scope: Literal["shared", "per_task"], routing: Routing) -> Ranker:
    """Thirty id features, half of them the user's, 8 experts 960 -> 256 -> 128, 4 tasks, top-k gates."""
    features = tuple(
        IdSpec(name=f"f{i}", kind="id", side="user" if i < FEATURES // 2 else "item", rows=ROWS_A_TABLE)
        for i in range(FEATURES)
    )
    return _ranker(features, tasks=4, experts=8, gate=k, scope=scope, routing=routing, towers=(64,))


def _ranker(
    features: tuple[FeatureSpec, ...],
    *,
    tasks: int,
    experts: int,
    gate: int,
    scope: str,
    routing: Routing,
    towers: tuple[int, ...],
    widths: tuple[int, int] = EXPERT_WIDTHS,
) -> Ranker:
    settings: dict[str, Any] = {
        "embedding_dim": DIM,
        "embedding_init": 1.0,
        "experts": experts,
        "expert_widths": widths,
        "tower_widths": towers,
        "gate": {"name": "top_k", "k": gate},
        "gate_scope": scope,
        "routing": routing,
    }
    torch.manual_seed(0)
    schema = Schema(features=features, tasks=tuple(TaskSpec(name=f"task{t}", kind="binary") for t in range(tasks)))
    return Ranker(schema, ModelConfig.model_validate(settings)).eval()


def write_form(model: Ranker, path: Path, form: Form) -> Path:
    """Write a ranker's graph in one of our forms."""
    return _write(ServingGraph(model, form), model, path)


def write_packed(model: Ranker, path: Path, form: Form) -> Path:
    """Write a ranker's graph for several requests in one run."""
    return _write(ServingGraph(model, form), model, path, packed=True)


def write_tiled(model: Ranker, path: Path) -> Path:
    """Write a ranker's dense tiled graph."""
    return _write(TiledGraph(model), model, path)


def tiled(inputs: Inputs) -> Inputs:
    """The same inputs with the one request row repeated for each candidate."""
    original, rows = inputs.request, inputs.candidate.rows
    lists = (
        np.split(original.list_values, np.cumsum(original.list_lengths[:, 0])[:-1])
        if len(original.list_lengths)
        else []
    )
    values = [np.tile(each, rows) for each in lists]
    request = PartInputs(
        ids=np.repeat(original.ids, rows, axis=0),
        list_values=np.concatenate(values) if values else original.list_values,
        list_lengths=np.repeat(original.list_lengths, rows, axis=1),
        dense=np.repeat(original.dense, rows, axis=0),
    )
    return replace(inputs, request=request)


def flops(model: Ranker) -> float:
    """Multiplications and additions of a candidate row in the dense split graph, without the gates' and the heads'."""
    request = model.layouts[0].width(model.config.dims)
    widths = (model.width - request, *model.config.expert_widths)
    expert = sum(before * after for before, after in pairwise(widths))
    towers = (model.config.expert_widths[-1], *model.config.tower_widths)
    tower = sum(before * after for before, after in pairwise(towers))
    return 2.0 * (model.config.experts * expert + len(model.schema.tasks) * tower)


def joined_requests(requests: Sequence[Inputs]) -> Inputs:
    """The inputs of the packed graph, request by request."""
    return Inputs(joined([each.request for each in requests]), joined([each.candidate for each in requests]))


def _write(graph: nn.Module, model: Ranker, path: Path, *, packed: bool = False) -> Path:
    assert isinstance(graph, ServingGraph)  # noqa: S101 both graphs are; this tells the type checker
    metadata = {"tasks": json.dumps([task.name for task in model.schema.tasks])}
    write_onnx(graph, model.schema, path, metadata, packed=packed)
    return path
