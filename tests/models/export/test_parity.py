"""The parity check itself: rows that rounding decides are ties, and no tie hides a real difference."""

from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import ExportError
from models.export.onnx_file import write_onnx
from models.export.parity import TOLERANCE, check_parity
from models.export_graph.serving_graph import ServingGraph
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()


def test_a_gate_that_cannot_choose_is_refused_though_each_row_is_a_tie(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}, gate_scope="shared"))
    write_onnx(ServingGraph(ranker, "sparse"), SCHEMA, tmp_path / "model.onnx", {})
    projection = ranker.network.typed_gates[0].projection
    assert projection is not None
    with torch.no_grad():
        # Two experts whose logits differ by less than a rounding error, in every row, and the other way round.
        projection.weight[1] = projection.weight[0]
        projection.bias[:2] = torch.tensor([10.0, 10.0 + 1e-6])
        projection.bias[2:] = 0.0
    with pytest.raises(ExportError, match=r"rows hang on ties between experts|differs from the eager model"):
        check_parity(ranker, tmp_path / "model.onnx", inputs(SCHEMA, 64, 64))


def test_equal_graphs_pass_over_more_than_two_thousand_rows(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}))
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, tmp_path / "model.onnx", {})
    parity = check_parity(ranker, tmp_path / "model.onnx", inputs(SCHEMA, 1, 64))
    assert parity.rows > 2000
    assert 0.0 <= parity.worst <= TOLERANCE
    assert parity.ties == 0
    assert np.isfinite(parity.worst)
