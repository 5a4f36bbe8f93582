"""Experts with weights of 8 and 4 bits: how they are stored, and what they answer."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.errors import ExportError
from contract.graph_names import CUDA_MODEL_FILE, variant_of
from models.export.onnx_file import operators, write_onnx
from models.export.quantised_moe import BLOCK, Bits, quantised, write_quantised_moe
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph
from serving.graph.engine import Engine
from tests.models.host_values import copies
from tests.models.small import inputs, lean_schema, lively_ranker, small_config

SCHEMA = lean_schema()


@pytest.mark.parametrize(("bits", "steps"), [(8, 254), (4, 14)])
def test_weights_lie_within_half_a_step_of_what_they_were(bits: Bits, steps: int) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 5, 2 * BLOCK)).astype(np.float32)
    weight[1, 2] = 0
    packed, scale = quantised(weight, bits)
    numbers = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1).reshape(weight.shape)
    step = scale[..., None] if bits == 8 else np.repeat(scale, BLOCK, axis=2)
    restored = (numbers.astype(np.float32) - 2 ** (bits - 1)) * step
    assert (restored[1, 2] == 0).all()
    assert abs(restored - weight).max() <= 0.51 * np.ptp(weight) / steps * 2
    assert (abs(restored - weight) <= 0.52 * step).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of one request whose widths are none of the kernel's."""
    path = tmp_path_factory.mktemp("card")
    config = small_config(gate={"name": "top_k", "k": 2}, experts=6, expert_widths=(40, 24))
    SCHEMA.save(path)
    write(lively_ranker(SCHEMA, config), "moe", path / CUDA_MODEL_FILE)
    return path


def write(ranker: object, form: Form, path: Path) -> None:
    graph = ServingGraph(ranker, form, one_request=True)  # type: ignore[arg-type]
    write_onnx(graph, SCHEMA, path, {"schema_fingerprint": SCHEMA.fingerprint()})


@pytest.mark.parametrize(("bits", "most"), [(8, 0.01), (4, 0.15)])
def test_answers_move_as_far_as_the_weights_do(folder: Path, bits: Bits, most: float) -> None:
    name = variant_of(CUDA_MODEL_FILE, f"int{bits}")
    assert write_quantised_moe(folder / CUDA_MODEL_FILE, folder / name, bits) == 1
    assert "com.microsoft.QMoE" in operators(folder / name)
    assert copies(folder / name) == []
    graph = onnx.load(folder / name).graph
    read = {value for node in graph.node for value in node.input}
    assert {value.name for value in graph.initializer} <= read  # float32 weights are not stored beside these
    for rows in (1, 300):
        request = inputs(SCHEMA, 1, rows)
        exact = Engine(folder, file=CUDA_MODEL_FILE).predict(request)
        for task, values in Engine(folder, file=name).predict(request).items():
            moved = abs(values - exact[task]).max()
            assert 0 < moved < most


def test_a_graph_without_the_operator_is_refused(tmp_path: Path) -> None:
    write(lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2})), "wide", tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="need the form moe"):
        write_quantised_moe(tmp_path / "model.onnx", tmp_path / "bytes.onnx", 8)
