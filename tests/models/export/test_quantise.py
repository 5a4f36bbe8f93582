"""int8 experts: close answers that hang on a row alone, everything else untouched, empty experts included."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxscript import ir

from contract.errors import ExportError
from contract.inputs import Inputs
from contract.prepared import taken
from models.export import export
from models.export.activation_ranges import Ranges, layers_of, measure_ranges
from models.export.quantise import quantise_experts
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}


def answers(path: Path, given: Inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    arrays = given.arrays()
    tasks = [task.name for task in SCHEMA.tasks]
    return np.stack(session.run(tasks, {node.name: arrays[node.name] for node in session.get_inputs()}))


def ranges(path: Path) -> Ranges:
    return measure_ranges(path, [inputs(SCHEMA, 1, 200, seed=seed).arrays() for seed in range(4)])


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sparse graph with its tables beside it, and its int8 form."""
    folder = tmp_path_factory.mktemp("int8")
    source, target = folder / "model.onnx", folder / "int8.onnx"
    ranker = lively_ranker(SCHEMA, small_config(gate=TOP_K))
    export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), source, "sparse", external_tables=True)
    assert quantise_experts(source, target, ranges(source)) == 4 * 2 + 2
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "int8.onnx", "tables.bin"}
    return source, target


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_answers_stay_close_for_any_number_of_rows(quantised: tuple[Path, Path], rows: int) -> None:
    given = inputs(SCHEMA, 1, rows, seed=rows)
    off = np.abs(answers(quantised[1], given) - answers(quantised[0], given))
    assert 0 < off.max() < 0.05


def test_layers_are_told_by_their_weights_since_another_graph_numbers_them_otherwise(
    quantised: tuple[Path, Path], tmp_path: Path
) -> None:
    source, target = quantised
    model = ir.load(source)
    weights = [weight for layer in layers_of(model.graph) if (weight := layer.node.inputs[1]) is not None]
    names = [weight.name for weight in weights]
    for number, weight in enumerate(weights):
        weight.name = f"passing.{number}"
    for weight, name in zip(weights, reversed(names), strict=True):
        weight.name = name
    shutil.copy(source.with_name("tables.bin"), tmp_path)
    ir.save(model, tmp_path / "renumbered.onnx")
    quantise_experts(tmp_path / "renumbered.onnx", tmp_path / "int8.onnx", ranges(source))
    given = inputs(SCHEMA, 1, 200, seed=5)
    np.testing.assert_array_equal(answers(tmp_path / "int8.onnx", given), answers(target, given))


@pytest.fixture(scope="module")
def behind_a_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 form of a graph whose experts read a shared layer, and no share of the request beside it."""
    folder = tmp_path_factory.mktemp("bottom")
    source, target = folder / "model.onnx", folder / "int8.onnx"
    export(lively_ranker(SCHEMA, small_config(gate=TOP_K, bottom=(16,))), SCHEMA, inputs(SCHEMA, 50, 50), source)
    quantise_experts(source, target, ranges(source))
    return target


@pytest.mark.parametrize("bottom", [False, True])
def test_an_answer_does_not_hang_on_its_neighbours(
    quantised: tuple[Path, Path], behind_a_layer: Path, *, bottom: bool
) -> None:
    target = behind_a_layer if bottom else quantised[1]
    given = inputs(SCHEMA, 1, 64, seed=9)
    # One neighbour far outside of all that was measured.
    given.candidate.dense[0] = 1e3
    together = answers(target, given)
    for row in (1, 17, 63):
        alone = Inputs(given.request, taken(given.candidate, np.array([row])))
        # One row is multiplied in another order than many, which can move a value over the edge of a step.
        np.testing.assert_allclose(answers(target, alone)[:, 0], together[:, row], atol=1e-3)


def test_router_tables_and_heads_keep_their_numbers(quantised: tuple[Path, Path]) -> None:
    before, after = (
        {i.name: i for i in onnx.load(path, load_external_data=True).graph.initializer} for path in quantised
    )
    kept = [name for name in before if "router" in name or "request" in name or "head" in name or name == "table_VK"]
    assert len(kept) > 4
    assert all(before[name] == after[name] for name in kept)
    int8 = [name for name, tensor in after.items() if tensor.data_type == onnx.TensorProto.INT8]
    weights = [name for name in int8 if name.endswith(".int8")]
    assert len(weights) == 4 * 2 + 2
    assert all(np.abs(onnx.numpy_helper.to_array(after[name])).max() <= 63 for name in weights)


def test_bytes_stay_bytes_between_an_experts_layers(behind_a_layer: Path) -> None:
    nodes = [node.op_type for node in onnx.load(behind_a_layer, load_external_data=False).graph.node]
    # The experts read one matrix, and each tower its gate's mixture.
    assert nodes.count("QuantizeLinear") == 1 + 2
    assert nodes.count("QGemm") == 4 * 2 + 2


@pytest.mark.parametrize("members", [1, 2])
def test_a_graph_without_experts_or_hidden_towers_is_refused(members: int, tmp_path: Path) -> None:
    config = small_config(architecture={"name": "shared_bottom"}, bottom=(8,), tower_widths=(), members=members)
    ranker = lively_ranker(SCHEMA, config)
    report = export(ranker, SCHEMA, inputs(SCHEMA, 50, 50), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="no expert or tower layer"):
        quantise_experts(report.path, tmp_path / "int8.onnx", ranges(report.path))


def test_the_dense_form_too_and_tables_of_an_earlier_export_are_removed(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    path, target, given = tmp_path / "model.onnx", tmp_path / "int8.onnx", inputs(SCHEMA, 50, 50)
    (tmp_path / "tables.bin").write_bytes(b"of an earlier export")
    assert export(ranker, SCHEMA, given, path).form == "dense"
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    # All first layers are one.
    assert quantise_experts(path, target, ranges(path)) == 1 + 4 + 2
    assert 0 < np.abs(answers(target, given) - answers(path, given)).max() < 0.05
