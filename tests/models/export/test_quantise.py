"""int8 experts: close answers, everything else untouched, empty experts and split inputs included."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from contract.errors import ExportError
from contract.inputs import Inputs
from models.export import export
from models.export.quantise import quantise_experts
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}


def answers(path: Path, given: Inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    arrays = given.arrays()
    tasks = [task.name for task in SCHEMA.tasks]
    return np.stack(session.run(tasks, {node.name: arrays[node.name] for node in session.get_inputs()}))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sparse graph with its tables beside it, and its int8 form."""
    folder = tmp_path_factory.mktemp("int8")
    source, target = folder / "model.onnx", folder / "int8.onnx"
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_K))
    export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), source, "sparse", external_tables=True)
    assert quantise_experts(source, target) == 4 * 2 + 2
    return source, target


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_answers_stay_close_for_any_number_of_rows(quantised: tuple[Path, Path], rows: int) -> None:
    given = inputs(SCHEMA, 1, rows, seed=rows)
    off = np.abs(answers(quantised[1], given) - answers(quantised[0], given))
    assert 0 < off.max() < 0.05


def test_router_tables_and_heads_keep_their_numbers(quantised: tuple[Path, Path]) -> None:
    before, after = (
        {i.name: i for i in onnx.load(path, load_external_data=True).graph.initializer} for path in quantised
    )
    kept = [name for name in before if "router" in name or "request" in name or "head" in name or name == "table_VK"]
    assert len(kept) > 4
    assert all(before[name] == after[name] for name in kept)
    int8 = [name for name, tensor in after.items() if tensor.data_type == onnx.TensorProto.INT8]
    assert len(int8) == 4 * 2 + 2
    assert all(np.abs(onnx.numpy_helper.to_array(after[name])).max() <= 63 for name in int8)


def test_a_graph_without_experts_or_hidden_towers_is_refused(tmp_path: Path) -> None:
    config = small_config(architecture={"name": "shared_bottom"}, bottom=(8,), tower_widths=())
    ranker = lively_ranker(SCHEMA, config)
    report = export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="no expert or tower layer"):
        quantise_experts(report.path, tmp_path / "int8.onnx")


def test_the_dense_form_too_and_tables_of_an_earlier_export_are_removed(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    path, target, given = tmp_path / "model.onnx", tmp_path / "int8.onnx", inputs(SCHEMA, 50, 50)
    (tmp_path / "tables.bin").write_bytes(b"of an earlier export")
    assert export(ranker, SCHEMA, given, path).form == "dense"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    # All first layers are one.
    assert quantise_experts(path, target) == 1 + 4 + 2
    assert 0 < np.abs(answers(target, given) - answers(path, given)).max() < 0.05
