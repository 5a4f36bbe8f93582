"""The parity check itself: rows that rounding decides are ties, and no tie hides a real difference."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.errors import ExportError
from models.export.onnx_file import write_onnx
from models.export.parity import CEILING, TOLERANCE, check_parity
from models.export_graph.serving_graph import ServingGraph
from models.ranker import Ranker
from tests.models.small import ill_conditioned, inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
SAMPLE = inputs(SCHEMA, 1, 64)


def graph_of(ranker: Ranker, folder: Path) -> Path:
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, folder / "model.onnx", {})
    return folder / "model.onnx"


def test_a_gate_that_cannot_choose_is_refused_though_each_row_is_a_tie(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}, gate_scope="shared"))
    projection = ranker.network.typed_gates[0].projection
    assert projection is not None
    with torch.no_grad():
        # Two experts whose logits differ by less than a rounding error, in every row, and the other way round.
        projection.weight[1] = projection.weight[0]
        projection.bias[:2] = torch.tensor([10.0, 10.0 + 1e-6])
        projection.bias[2:] = 0.0
    write_onnx(ServingGraph(ranker, "sparse"), SCHEMA, tmp_path / "model.onnx", {})
    with pytest.raises(ExportError, match="rows hang on ties between experts"):
        check_parity(ranker, tmp_path / "model.onnx", inputs(SCHEMA, 64, 64))


def test_equal_graphs_pass_over_more_than_two_thousand_rows(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 1}))
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, tmp_path / "model.onnx", {})
    parity = check_parity(ranker, tmp_path / "model.onnx", inputs(SCHEMA, 1, 64))
    assert parity.rows > 2000
    assert 0.0 <= parity.worst <= TOLERANCE
    assert parity.ties == 0
    assert np.isfinite(parity.worst)


def test_rows_at_the_edges_that_differ_by_the_models_own_rounding_pass(tmp_path: Path) -> None:
    ranker = ill_conditioned()
    parity = check_parity(ranker, graph_of(ranker, tmp_path), SAMPLE)
    assert TOLERANCE < parity.worst < CEILING
    assert 0 < parity.rounded < parity.rows / 10


@pytest.mark.parametrize("make", [ill_conditioned, lambda: lively_ranker(SCHEMA, small_config())])
def test_a_graph_with_one_weight_a_little_off_is_refused(tmp_path: Path, make: Callable[[], Ranker]) -> None:
    ranker = make()
    wrong = copy.deepcopy(ranker)
    with torch.no_grad():
        wrong.network.towers.typed_towers[0].head.weight[0, 0] += 1e-4
    with pytest.raises(ExportError, match=r"differs from the eager model by .* \(allowed [0-9.e-]+\)"):
        check_parity(ranker, graph_of(wrong, tmp_path), SAMPLE)


def test_a_model_that_rounding_moves_beyond_the_ceiling_is_refused_with_what_to_do(tmp_path: Path) -> None:
    ranker = ill_conditioned(weight=100.0)
    with pytest.raises(ExportError, match=r"allowed 1e-03.*look for a column that hardly varies"):
        check_parity(ranker, graph_of(ranker, tmp_path), SAMPLE)
