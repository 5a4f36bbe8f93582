"""Export: one graph that answers as the eager model does, in every form, and refuses what it cannot answer for."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from contract.errors import ExportError, SchemaMismatchError
from contract.schema import DenseSpec, IdSpec
from models.export import ExportReport, export
from models.export.onnx_file import operators
from models.export.parity import check_parity
from models.export.parity_sample import generate
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from tests.models.cuda_operators import CUDA
from tests.models.small import TASKS, inputs, lean_schema, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
LEAN = lean_schema()
TOP_K = {"name": "top_k", "k": 2}
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"gate": TOP_K, "bottom": (12, 6), "gate_scope": "shared"}, "sparse", "sparse"),
    ({"gate": TOP_K, "activation": "silu", "expert_widths": (8,)}, "sparse", "sparse"),
    ({"gate": TOP_K, "norm": "layer", "activation": "gelu"}, "sparse", "sparse"),
    ({"gate": {"name": "softmax"}, "input_norm": "none", "norm": "none"}, "auto", "dense"),
    ({"gate": {"name": "dselect_k", "k": 2}}, "sparse", "sparse"),
    ({"gate": TOP_K, "routing": "static", "expert_widths": (16,)}, "auto", "static"),
    ({"gate": {"name": "hash", "feature": "user"}}, "sparse", "sparse"),
    ({"gate": TOP_K, "table_dims": {"item": 8, "tab": 4, "tags": 12}}, "sparse", "sparse"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, ExportReport]:
    """A ranker with top-k gates a task, exported sparse."""
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_K))
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    return ranker, export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), path, form="sparse")


@pytest.mark.parametrize(("changes", "asked", "form"), CASES)
def test_the_graph_answers_as_the_eager_model(changes: dict[str, Any], asked: Any, form: str, tmp_path: Path) -> None:
    schema = SCHEMA if "table_dims" in changes else LEAN
    ranker = lively_ranker(schema, small_config(**changes))
    report = export(ranker, schema, inputs(schema, 200, 200), tmp_path / "model.onnx", form=asked)
    assert report.form == form
    assert report.rows_checked >= 2000
    assert report.unreached == ()
    assert set(report.operators) <= CUDA
    assert report.worst_difference <= 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_graph_holds_no_loops_branches_or_sequences(exported: tuple[Ranker, ExportReport]) -> None:
    _, report = exported
    assert report.operators == operators(report.path)
    assert not [name for name in report.operators if "Sequence" in name or name in {"Loop", "Scan", "If"}]
    assert not [name for name in report.operators if "." in name]
    # onnxruntime's scatters lose additions when several threads hit one row.
    assert not [name for name in report.operators if name.startswith("Scatter")]
    assert {"NonZero", "Gather", "Gemm", "TopK"} <= set(report.operators)


def test_ids_out_of_range_read_the_unknown_row(exported: tuple[Ranker, ExportReport]) -> None:
    _, report = exported
    session = onnxruntime.InferenceSession(str(report.path))
    extremes = [-1, 50, 2**63 - 1, -(2**63), 0]
    arrays: dict[str, Any] = dict(inputs(SCHEMA, 1, 5).arrays())
    arrays["candidate_ids"] = np.array(extremes).reshape(5, 1)
    arrays["candidate_dense"] = np.tile(arrays["candidate_dense"][:1], (5, 1))
    arrays["candidate_list_values"] = np.array(extremes * 2, dtype=np.int64)
    arrays["candidate_list_lengths"] = np.ones((2, 5), dtype=np.int64)
    like = session.run(["like"], arrays)[0]
    np.testing.assert_array_equal(like, like[-1])


def test_the_file_says_what_it_is(exported: tuple[Ranker, ExportReport]) -> None:
    _, report = exported
    model = onnx.load(report.path)
    properties = {prop.key: prop.value for prop in model.metadata_props}
    assert properties["schema_fingerprint"] == SCHEMA.fingerprint()
    assert json.loads(properties["tasks"])[1] == {"name": "rating", "kind": "regression"}
    assert (properties["gate"], properties["form"]) == ("top_k", "sparse")
    assert 0.25 <= float(properties["union_over_n"]) <= 1.0
    assert "crossover" in properties["form_reason"]
    sizes = {
        node.name: [d.dim_param or d.dim_value for d in node.type.tensor_type.shape.dim] for node in model.graph.input
    }
    assert sizes["request_ids"] == ["requests", 2]
    assert sizes["candidate_list_lengths"] == [2, "candidates"]
    gates = [f"expert_weights_{gate}" for gate in range(2)]
    assert [node.name for node in model.graph.output] == ["like", "rating", *gates]
    assert json.loads(properties["gates"])[1] == {"level": 0, "experts": 4, "tasks": ["rating"]}


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_schema_of_one_side_exports(side: Any, tmp_path: Path) -> None:
    features = (
        IdSpec(name="a", kind="id", side=side, rows=9),
        IdSpec(name="b", kind="id_list", side=side, rows=5),
        DenseSpec(name="c", side=side, encoding="standardise"),
    )
    schema = small_schema(features=features)
    ranker = lively_ranker(schema, small_config(gate=TOP_K))
    rows = inputs(schema, 100, 100)
    report = export(ranker, schema, rows, tmp_path / "model.onnx", form="sparse")
    assert report.worst_difference <= 1e-5


def test_a_schema_of_dense_features_alone_exports(tmp_path: Path) -> None:
    schema = small_schema(features=(DenseSpec(name="c", side="item", encoding="standardise"),))
    ranker = lively_ranker(schema, small_config())
    assert export(ranker, schema, inputs(schema, 100, 100), tmp_path / "model.onnx").worst_difference <= 1e-5


def test_deleting_the_unused_experts_of_a_static_gate_changes_no_bit(tmp_path: Path) -> None:
    config = small_config(gate=TOP_K, routing="static", gate_scope="shared", norm="none", input_norm="none")
    ranker = lively_ranker(LEAN, config)
    rows = inputs(LEAN, 64, 64)
    before = export(ranker, LEAN, rows, tmp_path / "a.onnx")
    unused = ~ranker.network.typed_gates[0](None).selected_BE[0]
    with torch.no_grad():
        ranker.get_parameter("network.levels.0.banks.0.experts.blocks.0.linear.weight").view(4, 16, -1)[unused] = 123.0
    after = export(ranker, LEAN, rows, tmp_path / "b.onnx")
    assert before.union_over_n == 0.5
    assert before.path.read_bytes() == after.path.read_bytes()


def test_a_gate_that_has_not_converged_is_exported_dense_with_a_warning(tmp_path: Path) -> None:
    ranker = lively_ranker(LEAN, small_config(gate={"name": "dselect_k", "k": 1, "gamma": 20.0}))
    report = export(ranker, LEAN, inputs(LEAN, 100, 100), tmp_path / "model.onnx")
    assert report.form == "dense"
    assert "have not converged to the 1" in report.warning


def test_a_gate_that_has_not_converged_is_refused_on_request(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "dselect_k", "k": 1, "gamma": 20.0}))
    with pytest.raises(ExportError, match="have not converged to the 1"):
        export(ranker, SCHEMA, inputs(SCHEMA, 100, 100), tmp_path / "model.onnx", require_sparse=True)
    assert not list(tmp_path.iterdir())


def test_tables_beside_the_graph_give_the_same_answers(exported: tuple[Ranker, ExportReport], tmp_path: Path) -> None:
    ranker, report = exported
    beside = tmp_path / "model.onnx"
    export(ranker, SCHEMA, inputs(SCHEMA, 200, 200), beside, form="sparse", external_tables=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "tables.bin"]
    rows = sum(SCHEMA.tables().values()) + 1
    assert (tmp_path / "tables.bin").stat().st_size == rows * 8 * 4
    given: dict[str, Any] = dict(inputs(SCHEMA, 1, 40, seed=3).arrays())
    expected, actual = (onnxruntime.InferenceSession(str(path)).run(None, given) for path in (report.path, beside))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_weight_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config())
    with torch.no_grad():
        ranker.get_parameter("network.towers.towers.0.head.bias").fill_(float("nan"))
    with pytest.raises(ExportError, match=r"towers.0.head.bias holds 1 of 1 values that are not finite"):
        export(ranker, SCHEMA, inputs(SCHEMA, 10, 10), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Whim(nn.Module):
    """What no graph can hold: the way on depends on the numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_module_that_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    ranker.network.towers.calibrations[0] = Whim()
    with pytest.raises(ExportError, match="the exporter refused the model"):
        export(ranker, SCHEMA, inputs(SCHEMA, 10, 10), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_schema_is_refused(tmp_path: Path) -> None:
    other = small_schema(tasks=TASKS[:1])
    with pytest.raises(SchemaMismatchError):
        export(lively_ranker(other, small_config()), SCHEMA, inputs(SCHEMA, 10, 10), tmp_path / "model.onnx")


def test_a_graph_that_answers_differently_is_refused_with_the_worst_row(exported: tuple[Ranker, ExportReport]) -> None:
    ranker, report = copy.deepcopy(exported)
    with torch.no_grad():
        ranker.get_parameter("network.towers.towers.1.head.bias").add_(0.01)
    with pytest.raises(ExportError, match=r"differs.*on task rating, row \d+ of the sample: eager .* request ids"):
        check_parity(ranker, report.path, inputs(SCHEMA, 64, 64))


def test_generated_rows_reach_every_expert() -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_K))
    rows = inputs(SCHEMA, 1, 4096, seed=1)
    routings = ranker(TensorInputs.from_numpy(rows)).routings
    assert all(bool(routing.selected_BE.any(dim=0).all()) for routing in routings)
    assert generate(SCHEMA, 3, 3, np.random.default_rng(0)).candidate.rows == 3
