"""Always-on experts: added with weight 1, trained by every row, and dense in every form of the graph."""

from itertools import product
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from models.experts.level import RoutingInput, mix
from models.export import export
from tests.models.small import graph_path, inputs, lean_schema, lively_ranker, small_config

SCHEMA = lean_schema()
SHARED: dict[str, Any] = {"architecture": {"name": "mmoe", "shared_experts": 2}, "gate": {"name": "top_k", "k": 1}}


# In every run any two of the three together; all others with `make pairs`.
IN_EVERY_RUN = {
    ("shared", "sparse", "batch"),
    ("shared", "dense", "layer"),
    ("per_task", "sparse", "layer"),
    ("per_task", "dense", "batch"),
}
CASES = [
    pytest.param(*case, marks=() if case in IN_EVERY_RUN else pytest.mark.pairs)
    for case in product(("shared", "per_task"), ("sparse", "dense"), ("batch", "layer"))
]


@pytest.mark.parametrize(("scope", "form", "norm"), CASES)
def test_the_graph_answers_as_the_model_does(scope: str, form: Any, norm: str, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**SHARED, gate_scope=scope, norm=norm))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), form)
    assert report.form == form
    assert report.worst_difference <= 1e-5


def test_private_and_shared_experts_stand_together_in_the_sparse_graph(tmp_path: Path) -> None:
    architecture = {"name": "mmoe", "private_experts": 1, "shared_experts": 1}
    ranker = lively_ranker(SCHEMA, small_config(architecture=architecture, gate=SHARED["gate"], gate_scope="shared"))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), "sparse")
    assert report.worst_difference <= 1e-5


def test_static_gates_keep_the_shared_experts(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**SHARED, routing="static"))
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path))
    assert report.form == "static"


def test_no_rows_are_gathered_for_shared_experts(tmp_path: Path) -> None:
    counts = []
    for shared in (0, 2):
        architecture = {"name": "mmoe", "shared_experts": shared}
        ranker = lively_ranker(
            SCHEMA, small_config(architecture=architecture, gate=SHARED["gate"], gate_scope="shared")
        )
        path = tmp_path / f"{shared}.onnx"
        export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), path, "sparse")
        counts.append(sum(node.op_type == "NonZero" for node in onnx.load(path).graph.node))
    assert counts[0] == counts[1] == 4


def test_the_shared_experts_answers_are_added_to_the_routed_ones() -> None:
    ranker = lively_ranker(SCHEMA, small_config(**SHARED, gate_scope="shared"))
    level = ranker.network.typed_levels[0]
    x = torch.randn(5, sum(f.in_features for f in [level.typed_gates[0].projection] if f is not None))
    answers = torch.cat([bank.experts(x) for bank in level.typed_banks], dim=1)
    streams, routings = level([x], RoutingInput(None, None))
    routed = mix(answers, routings[:1])[0]
    torch.testing.assert_close(streams[0], routed + answers[:, 4:].sum(1))
    assert not list(level.typed_gates[1].parameters())


def test_an_expert_that_no_row_takes_is_named_beside_shared_ones(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**SHARED, gate_scope="shared"))
    projection = ranker.network.typed_gates[0].projection
    assert projection is not None
    with torch.no_grad():
        projection.bias[0] = -1e4
    report = export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), graph_path(tmp_path), "sparse")
    assert report.idle == (0,)
