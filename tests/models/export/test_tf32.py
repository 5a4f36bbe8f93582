"""The graph as a card computes it in TF32."""

from pathlib import Path

import numpy as np
import onnxruntime

from models.export.onnx_file import write_onnx
from models.export.tf32 import rounded, write_tf32
from models.export_graph.serving_graph import ServingGraph
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()


def test_a_number_keeps_ten_bits_of_its_mantissa() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    found = rounded(values)
    assert not (found.view(np.uint32) & (2**13 - 1)).any()
    assert np.abs(found / values - 1).max() <= 2**-11


def test_answers_move_by_little_and_by_more_than_float32s_own_error(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, tmp_path / "model.onnx", {})
    assert write_tf32(tmp_path / "model.onnx", tmp_path / "tf32.onnx") > 5
    rows = inputs(SCHEMA, 1, 200).arrays()
    exact, moved = (
        onnxruntime.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"]).run(["like"], rows)[0]
        for name in ("model.onnx", "tf32.onnx")
    )
    assert 1e-6 < np.abs(exact - moved).max() < 1e-2
