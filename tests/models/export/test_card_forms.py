"""The forms for cards on a card; and, told without one, that no value goes between host and card within them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, variant_of
from contract.schema import DenseSpec, IdSpec
from models.export import export
from models.export.cuda_export import export_cuda
from models.export.cuda_form import CudaChoice
from models.export.half import write_half
from models.export.onnx_file import operators, write_onnx
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph
from serving.graph.batched_graph import BatchedEngine
from serving.graph.engine import Engine, provider_options
from tests.card import needs_card
from tests.models.cuda_operators import CUDA as KERNELS
from tests.models.host_values import copies
from tests.models.small import inputs, lively_ranker, small_config, small_schema

NO_LISTS = small_schema(
    features=(
        IdSpec(name="user", kind="id", side="user", rows=100),
        IdSpec(name="item", kind="id", side="item", rows=50),
        DenseSpec(name="price", side="item", encoding="piecewise_linear", edges=(0.0, 1.0, 2.0)),
    )
)
TOP_2 = {"name": "top_k", "k": 2}


@pytest.mark.parametrize(("form", "gate"), [("wide", "top_k"), ("moe", "dselect_k")])
def test_no_value_of_the_host_goes_into_a_kernel_of_the_card(form: Form, gate: str, tmp_path: Path) -> None:
    ranker = lively_ranker(NO_LISTS, small_config(gate={"name": gate}))
    for packed in (False, True):
        graph = ServingGraph(ranker, form, one_request=not packed)
        write_onnx(graph, NO_LISTS, tmp_path / "model.onnx", {}, packed=packed)
        assert copies(tmp_path / "model.onnx") == []
        assert set(operators(tmp_path / "model.onnx")) <= KERNELS


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize("form", ["wide", "moe"])
def test_a_card_answers_as_the_cpu_in_its_own_forms(form: str, capture: object, tmp_path: Path) -> None:
    NO_LISTS.save(tmp_path)
    ranker, rows = lively_ranker(NO_LISTS, small_config(gate=TOP_2)), inputs(NO_LISTS, 100, 100)
    report = export(ranker, NO_LISTS, rows, tmp_path / "model.onnx")
    export_cuda(ranker, report, rows, CudaChoice("moe" if form == "moe" else "wide", "asked for"))
    for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE):
        write_half(tmp_path / name, tmp_path / variant_of(name, "fp16"))
    cpu, how = Engine(tmp_path), {"device": "cuda", "capture": bool(capture)}
    device = Engine(tmp_path, file=CUDA_MODEL_FILE, **how)  # type: ignore[arg-type]
    packed = BatchedEngine(tmp_path, file=CUDA_PACKED_FILE, **how)  # type: ignore[arg-type]
    half = Engine(tmp_path, file=variant_of(CUDA_MODEL_FILE, "fp16"), **how)  # type: ignore[arg-type]
    requests = [inputs(NO_LISTS, 1, size, seed=size) for size in (1, 64, 1000)]
    # Three times: the first runs allocate, the second may capture, the third replays.
    for _ in range(3):
        together = packed.predict(requests)
        for request, found in zip(requests, together, strict=True):
            alone, halved = device.predict(request), half.predict(request)
            for task, values in cpu.predict(request).items():
                np.testing.assert_allclose(alone[task], values, atol=1e-4, rtol=1e-4)
                np.testing.assert_allclose(found[task], values, atol=1e-4, rtol=1e-4)
                np.testing.assert_allclose(halved[task], values, atol=1e-2, rtol=1e-2)


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("form", ["wide", "moe"])
def test_every_node_of_the_forms_for_cards_runs_on_the_card(form: Form, tmp_path: Path) -> None:
    ranker = lively_ranker(NO_LISTS, small_config(gate=TOP_2))
    write_onnx(ServingGraph(ranker, form, one_request=True), NO_LISTS, tmp_path / "model.onnx", {})
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "placed.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options, providers=provider_options("cuda", "fp32"))
    placed = onnx.load(tmp_path / "placed.onnx", load_external_data=False)
    assert not [node.name for node in placed.graph.node if node.op_type.startswith("Memcpy")]
