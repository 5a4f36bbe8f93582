"""Tables in fewer bytes: close rows, exact zeros, memory-mapped, over 2 GB."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from contract.errors import ExportError
from contract.graph_names import TABLES_FILE
from contract.inputs import Inputs
from contract.schema import DenseSpec, IdSpec
from models.export import export
from models.export.onnx_file import write_onnx
from models.export.table_precision import TABLE_FILES, TableForm, store_tables
from models.export_graph.lookup import TABLES
from models.export_graph.serving_graph import ServingGraph
from models.ranker import Ranker
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
ROWS = sum(SCHEMA.tables().values()) + 1
OVER_2_GB = 2**31 // (8 * 4) + 1000


def answers(path: Path, given: Inputs) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    arrays = given.arrays()
    names = [task.name for task in SCHEMA.tasks]
    return np.stack(session.run(names, {node.name: arrays[node.name] for node in session.get_inputs()}))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, Path]:
    """A dense graph with its tables beside it."""
    folder = tmp_path_factory.mktemp("tables")
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, folder / "model.onnx", {}, external_tables=True)
    return ranker, folder / "model.onnx"


def constants(path: Path) -> dict[str, np.ndarray]:
    found = onnx.load(path).graph.initializer
    return {each.name: onnx.numpy_helper.to_array(each) for each in found if each.name.startswith(TABLES)}


@pytest.mark.parametrize(("form", "off"), [("fp16", 1e-3), ("int8", 0.05)])
@pytest.mark.parametrize("before", ["beside", "inside"])
def test_answers_stay_close_and_the_tables_lie_beside_the_graph(
    source: tuple[Ranker, Path], form: TableForm, off: float, before: str, tmp_path: Path
) -> None:
    assert form != "fp32"
    path = source[1]
    if before == "inside":
        path = tmp_path / "inline.onnx"
        onnx.save(onnx.load(source[1]), path)
    target = path.with_name(f"{form}.onnx")
    sizes = store_tables(path, target, form)
    bytes_a_row = 8 * 2 if form == "fp16" else 8 + 2 * 4
    assert sizes == (ROWS * 8 * 4, ROWS * bytes_a_row)
    assert path.with_name(TABLE_FILES[form]).stat().st_size >= ROWS * bytes_a_row
    given = inputs(SCHEMA, 1, 200)
    assert 0 < np.abs(answers(target, given) - answers(path, given)).max() < off
    properties = {prop.key: prop.value for prop in onnx.load(target, load_external_data=False).metadata_props}
    assert properties["tables"] == form


def test_no_whole_table_is_widened(source: tuple[Ranker, Path]) -> None:
    store_tables(source[1], source[1].with_name("rows.onnx"), "int8")
    model = onnx.load(source[1].with_name("rows.onnx"), load_external_data=False)
    tables = {each.name for each in model.graph.initializer if each.name.startswith(TABLES)}
    readers = {node.op_type for node in model.graph.node if tables & set(node.input)}
    assert tables == {f"{TABLES}.values", f"{TABLES}.scale", f"{TABLES}.lowest"}
    assert readers == {"Gather"}


def test_each_row_is_within_half_a_step_and_rows_of_one_value_are_exact(source: tuple[Ranker, Path]) -> None:
    store_tables(source[1], source[1].with_name("exact.onnx"), "int8")
    whole = constants(source[1])[TABLES].astype(np.float64)
    stored = constants(source[1].with_name("exact.onnx"))
    assert stored[f"{TABLES}.values"].dtype == np.uint8
    step, lowest = stored[f"{TABLES}.scale"].astype(np.float64), stored[f"{TABLES}.lowest"].astype(np.float64)
    off = np.abs(stored[f"{TABLES}.values"] * step + lowest - whole)
    assert (off <= 0.501 * step + 1e-9).all()
    # The row of zeros behind all tables, which stands for what a list does not hold.
    assert (whole[-1] == 0).all()
    assert (off[-1] == 0).all()


def test_what_half_precision_cannot_hold_is_refused(source: tuple[Ranker, Path], tmp_path: Path) -> None:
    model = onnx.load(source[1])
    (table,) = (each for each in model.graph.initializer if each.name == TABLES)
    values = onnx.numpy_helper.to_array(table).copy()
    values[3, 2] = -1e6
    table.CopyFrom(onnx.numpy_helper.from_array(values, TABLES))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="a table holds 1e\\+06, but half precision ends at 65504"):
        store_tables(tmp_path / "model.onnx", tmp_path / "half.onnx", "fp16")
    assert not (tmp_path / "half.onnx").exists()


@pytest.mark.long
def test_a_graph_without_tables_is_refused(tmp_path: Path) -> None:
    schema = small_schema(features=(DenseSpec(name="price", side="item", encoding="standardise"),))
    ranker = lively_ranker(schema, small_config(gate={"name": "softmax"}))
    write_onnx(ServingGraph(ranker, "dense"), schema, tmp_path / "model.onnx", {})
    with pytest.raises(ExportError, match="no embedding tables"):
        store_tables(tmp_path / "model.onnx", tmp_path / "int8.onnx", "int8")


def test_tables_over_2_gb_are_mapped_and_answer(source: tuple[Ranker, Path], tmp_path: Path) -> None:
    """The file is sparse: the graph's own rows, a hole, and a row of zeros."""
    model = onnx.load(source[1], load_external_data=False)
    (table,) = (each for each in model.graph.initializer if each.name == TABLES)
    whole = source[1].with_name(TABLES_FILE).read_bytes()
    before = answers(source[1], inputs(SCHEMA, 1, 50))
    with (tmp_path / TABLES_FILE).open("wb") as file:
        file.write(whole)
        file.truncate(OVER_2_GB * 8 * 4)
    table.dims[0] = OVER_2_GB
    del model.graph.value_info[:]
    length = {entry.key: entry for entry in table.external_data}
    length["length"].value = str(OVER_2_GB * 8 * 4)
    onnx.save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    assert table.data_type == TensorProto.FLOAT
    resident = _resident()
    np.testing.assert_array_equal(answers(tmp_path / "model.onnx", inputs(SCHEMA, 1, 50)), before)
    assert _resident() - resident < 2**28


@pytest.mark.long
def test_a_model_with_tables_over_2_gb_exports(tmp_path: Path) -> None:
    schema = small_schema(
        features=(
            IdSpec(name="user", kind="id", side="user", rows=OVER_2_GB),
            DenseSpec(name="price", side="item", encoding="standardise"),
        )
    )
    ranker = Ranker(schema, small_config(gate={"name": "softmax"})).eval()
    report = export(ranker, schema, inputs(schema, 100, 100), tmp_path / "model.onnx")
    assert report.worst_difference <= 1e-5
    assert (tmp_path / TABLES_FILE).stat().st_size > 2**31
    store_tables(report.path, tmp_path / "int8.onnx", "int8")
    given = inputs(schema, 1, 50)
    assert np.abs(answers(tmp_path / "int8.onnx", given) - answers(report.path, given)).max() < 0.05


def _resident() -> int:
    """Bytes of memory that are this process's own."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.parametrize(("form", "off"), [("fp16", 1e-3), ("int8", 0.05)])
def test_tables_of_several_widths_are_all_made_smaller(form: TableForm, off: float, tmp_path: Path) -> None:
    assert form != "fp32"
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}, table_dims={"user": 20, "tags": 4}))
    path = tmp_path / "model.onnx"
    write_onnx(ServingGraph(ranker, "dense"), SCHEMA, path, {}, external_tables=True)
    assert constants(path).keys() == {f"{TABLES}_{dim}" for dim in (4, 8, 20)}
    given = inputs(SCHEMA, 1, 40)
    before = answers(path, given)
    store_tables(path, tmp_path / "small.onnx", form)
    assert {name.partition(".")[0] for name in constants(tmp_path / "small.onnx")} == constants(path).keys()
    assert np.abs(answers(tmp_path / "small.onnx", given) - before).max() < off
