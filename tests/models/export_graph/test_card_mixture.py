"""The forms for cards answer as the eager model does, on the CPU provider, which has the operator too."""

from pathlib import Path
from typing import Any

import pytest
from onnxscript import ir

from contract.schema import DenseSpec, IdSpec, TaskSpec
from models.export.onnx_file import operators, write_onnx
from models.export.parity import TOLERANCE, check_parity
from models.export_graph.card_mixture import misfit, slots_of
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph
from tests.models.small import inputs, lean_schema, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
LEAN = lean_schema()
ITEM_ONLY = small_schema(
    features=(
        IdSpec(name="item", kind="id", side="item", rows=50),
        DenseSpec(name="price", side="item", encoding="standardise"),
    ),
    tasks=(TaskSpec(name="like", kind="binary"),),
)
GATES: list[dict[str, Any]] = [
    {"name": "softmax"},
    {"name": "top_k", "k": 1},
    {"name": "top_k", "k": 3, "null_experts": 2},
    {"name": "noisy_top_k", "k": 2},
    {"name": "dselect_k", "k": 2},
    {"name": "comet", "k": 2},
    {"name": "gumbel"},
    {"name": "dense_to_sparse", "k": 2, "switch_step": 2},
    {"name": "top_p", "p": 0.6},
    {"name": "hash", "feature": "item"},
    {"name": "top_any"},
    {"name": "mask_moe", "feature": "item", "k": 2, "rare": 60},
]
FORMS: list[Form] = ["wide", "moe"]


def _worst(form: Form, config: dict[str, Any], path: Path, *, packed: bool, schema: Any = SCHEMA) -> float:
    ranker = lively_ranker(schema, small_config(**config))
    graph = ServingGraph(ranker, form, one_request=not packed)
    write_onnx(graph, schema, path / "model.onnx", {}, packed=packed)
    sample = inputs(schema, 64, 64)
    parity = check_parity(ranker, path / "model.onnx", sample, packed=packed, one_request=not packed)
    assert parity.rows > 2000
    return parity.worst


QUICK = {("top_k", "moe", "plain"), ("dselect_k", "moe", "packed"), ("softmax", "wide", "plain")}
CASES = [
    pytest.param(gate, form, graph, marks=() if (gate["name"], form, graph) in QUICK else pytest.mark.pairs)
    for gate in GATES
    for form in FORMS
    for graph in ("plain", "packed")
]


@pytest.mark.parametrize(("gate", "form", "graph"), CASES)
def test_every_gate_is_answered_as_the_model_does(gate: dict[str, Any], form: Form, graph: str, tmp_path: Path) -> None:
    assert _worst(form, {"gate": gate}, tmp_path, packed=graph == "packed") <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "config",
    [
        {"architecture": {"name": "mmoe", "shared_experts": 1}, "gate_scope": "shared"},
        {"architecture": {"name": "mmoe", "private_experts": 1}, "gate_scope": "shared"},
        {"architecture": {"name": "ple", "levels": 2}},
        {"routing": "user"},
        {"bottom": (12,), "activation": "silu"},
        {"members": 2, "bottom": (12,), "architecture": {"name": "mmoe", "shared_experts": 1}, "gate_scope": "shared"},
        pytest.param({"architecture": {"name": "home"}}, marks=pytest.mark.pairs),
        pytest.param({"experts": 33, "expert_widths": (11, 5), "gate_scope": "shared"}, marks=pytest.mark.pairs),
        pytest.param({"expert_widths": (8, 24), "norm": "none"}, marks=pytest.mark.pairs),
        pytest.param({"experts": 64, "gate": {"name": "top_k", "k": 8}}, marks=pytest.mark.pairs),
        pytest.param({"experts": 2, "gate": {"name": "top_k", "k": 2}}, marks=pytest.mark.pairs),
    ],
)
def test_every_architecture_is_answered_as_the_model_does(form: Form, config: dict[str, Any], tmp_path: Path) -> None:
    whole = {"gate": {"name": "top_k", "k": 2}} | config
    assert _worst(form, whole, tmp_path, packed=False, schema=LEAN) <= TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_a_schema_without_request_features_is_answered_too(form: Form, tmp_path: Path) -> None:
    assert _worst(form, {"gate": {"name": "top_k", "k": 2}}, tmp_path, packed=False, schema=ITEM_ONLY) <= TOLERANCE


@pytest.mark.parametrize(
    "config", [{"norm": "layer"}, {"expert_widths": (8,)}, {"expert_widths": (16, 16, 8), "residual": True}]
)
def test_the_wide_form_takes_what_the_operator_cannot(config: dict[str, Any], tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**config))
    assert misfit(ranker.network.typed_levels[0]).startswith("com.microsoft.MoE has")
    assert _worst("wide", config, tmp_path, packed=False, schema=LEAN) <= TOLERANCE


def test_narrow_experts_are_padded_to_what_a_card_takes(tmp_path: Path) -> None:
    ranker = lively_ranker(LEAN, small_config(gate={"name": "top_k", "k": 2}, expert_widths=(8, 4)))
    write_onnx(ServingGraph(ranker, "moe", one_request=True), LEAN, tmp_path / "model.onnx", {})
    (node,) = (node for node in ir.load(tmp_path / "model.onnx").graph if node.op_type == "MoE")
    weights = [value.const_value for place in (2, 4) if (value := node.inputs[place]) is not None]
    assert all(tensor is not None and min(tensor.numpy().shape[1:]) >= 16 for tensor in weights)


def test_gelu_is_left_to_the_wide_form() -> None:
    ranker = lively_ranker(SCHEMA, small_config(activation="gelu"))
    assert "approximates gelu" in misfit(ranker.network.typed_levels[0])


def test_the_gates_of_all_tasks_share_one_call(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}))
    write_onnx(ServingGraph(ranker, "moe", one_request=True), SCHEMA, tmp_path / "model.onnx", {})
    assert slots_of(ranker.network.typed_levels[0]) == 2 * len(SCHEMA.tasks)
    assert "com.microsoft.MoE" in operators(tmp_path / "model.onnx")
    assert "NonZero" not in operators(tmp_path / "model.onnx")
