"""The graph on CUDA: the CPU's answers, and every node on the device."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from contract.schema import DenseSpec, IdSpec
from models.export import export
from models.export.batched_export import export_packed
from models.export.onnx_file import write_onnx
from models.export.table_precision import store_tables
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph
from serving.graph.batched_graph import BatchedEngine
from serving.graph.engine import Engine, provider_options
from tests.card import needs_card
from tests.models.host_values import copies
from tests.models.small import inputs, lively_ranker, small_config, small_schema

CUDA = "CUDAExecutionProvider"
SCHEMA = small_schema()
NO_LISTS = small_schema(
    features=(
        IdSpec(name="user", kind="id", side="user", rows=100),
        IdSpec(name="item", kind="id", side="item", rows=50),
        DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0)),
    )
)
TOP_K = {"name": "top_k", "k": 2}
CLOSE = 1e-4
COUNTED = ("dselect_k", "comet")
"""Gates whose slots are counted in each run."""


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_cuda_answers_as_the_cpu(form: str, tmp_path: Path) -> None:
    assert form in {"sparse", "dense"}
    SCHEMA.save(tmp_path)
    ranker, rows = lively_ranker(SCHEMA, small_config(gate=TOP_K)), inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, rows, tmp_path / "model.onnx", "sparse" if form == "sparse" else "dense")
    export_packed(ranker, report, rows, tmp_path / "packed.onnx")
    engine, device = Engine(tmp_path), Engine(tmp_path, device="cuda")
    assert device.providers[0] == CUDA
    requests = [inputs(SCHEMA, 1, size, seed=size) for size in (1, 64, 1000)]
    expected = [engine.predict(each) for each in requests]
    packed = BatchedEngine(tmp_path, device="cuda").predict(requests)
    for request, alone, together in zip(requests, expected, packed, strict=True):
        found = device.predict(request)
        for task, values in alone.items():
            np.testing.assert_allclose(found[task], values, atol=CLOSE, rtol=CLOSE)
            np.testing.assert_allclose(together[task], values, atol=CLOSE, rtol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["top_k", "softmax", "top_p", *COUNTED])
@pytest.mark.parametrize("form", ["sparse", "dense"])
def test_no_value_of_the_host_goes_into_a_kernel_of_the_card(form: Form, gate: str, tmp_path: Path) -> None:
    ranker = lively_ranker(NO_LISTS, small_config(gate=TOP_K if gate == "top_k" else {"name": gate}))
    # Whether requests are packed is settled before any gate: once for each way to choose is enough.
    for packed in (False, True) if gate in {"top_k", "comet"} else (False,):
        write_onnx(ServingGraph(ranker, form), NO_LISTS, tmp_path / "model.onnx", {}, packed=packed)
        counted = form == "sparse" and gate in COUNTED
        assert {each.split()[-1] for each in copies(tmp_path / "model.onnx")} == ({"TopK"} if counted else set())


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("tables", ["fp32", "fp16", "int8"])
def test_nothing_is_copied_between_host_and_device_within_the_graph(tables: str, tmp_path: Path) -> None:
    """Without lists, whose longest is a number that the host must know."""
    ranker = lively_ranker(NO_LISTS, small_config(gate=TOP_K))
    path = export(ranker, NO_LISTS, inputs(NO_LISTS, 100, 100), tmp_path / "model.onnx", "sparse").path
    if tables != "fp32":
        store_tables(path, tmp_path / "stored.onnx", "fp16" if tables == "fp16" else "int8")
        path = tmp_path / "stored.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "placed.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=provider_options("cuda", "fp32"))
    placed = onnx.load(tmp_path / "placed.onnx", load_external_data=False)
    assert not [node.name for node in placed.graph.node if node.op_type.startswith("Memcpy")]
