"""What a graph says of its experts: each gate weighs them as in the eager model, and telling costs no operator."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from contract.graph_names import GATE_OUTPUT
from models.export import export
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lean_schema, lively_ranker, small_config

SCHEMA = lean_schema()
TOP_K = {"name": "top_k", "k": 2}
CASES: list[tuple[dict[str, Any], Any]] = [
    ({"gate": TOP_K}, "sparse"),
    ({"gate": TOP_K, "gate_scope": "shared"}, "dense"),
    ({"gate": TOP_K, "routing": "user"}, "sparse"),
    ({"gate": {"name": "softmax"}}, "dense"),
    ({"gate": TOP_K, "architecture": {"name": "ple"}}, "sparse"),
]


@pytest.mark.parametrize(("changes", "form"), CASES)
def test_the_weights_are_those_of_the_model(changes: dict[str, Any], form: Any, tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(**changes))
    given = inputs(SCHEMA, 1, 40)
    export(ranker, SCHEMA, given, tmp_path / "model.onnx", form)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    gates = json.loads(session.get_modelmeta().custom_metadata_map["gates"])
    with torch.no_grad():
        routings = ranker(TensorInputs.from_numpy(given)).routings
    assert len(gates) == len(routings)
    arrays = given.arrays()
    feed = {node.name: arrays[node.name] for node in session.get_inputs()}
    for number, (gate, routing) in enumerate(zip(gates, routings, strict=True)):
        (seen,) = session.run([f"{GATE_OUTPUT}{number}"], feed)
        assert seen.shape == (40, gate["experts"])
        np.testing.assert_allclose(seen, routing.weights_BE.expand(40, -1).numpy(), atol=1e-6)
    assert {task for gate in gates for task in gate["tasks"]} == {"like", "rating"}


def test_static_gates_are_written_down_and_have_no_output(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_K, routing="static"))
    export(ranker, SCHEMA, inputs(SCHEMA, 1, 40), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert [node.name for node in model.graph.output] == ["like", "rating"]
    gates = json.loads({prop.key: prop.value for prop in model.metadata_props}["gates"])
    with torch.no_grad():
        routings = ranker(TensorInputs.from_numpy(inputs(SCHEMA, 1, 5))).routings
    for gate, routing in zip(gates, routings, strict=True):
        np.testing.assert_allclose(gate["weights"], routing.weights_BE[0].numpy(), atol=1e-6)
        assert sum(weight > 0 for weight in gate["weights"]) == 2
