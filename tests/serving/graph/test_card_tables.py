"""Tables that graphs for a card take as inputs: one copy for all graphs, with the same answers."""

import ctypes
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from contract.errors import IntegrityError
from contract.graph_names import CARD_TABLES, CUDA_MODEL_FILE, CUDA_PACKED_FILE, TABLES_FILE
from models.export.onnx_file import write_onnx
from models.export.table_inputs import tables_as_inputs
from models.export_graph.serving_graph import ServingGraph
from serving.graph.batched_graph import BatchedEngine
from serving.graph.bucket_runner import BucketRunner
from serving.graph.card_tables import CardTables
from serving.graph.engine import Engine
from serving.graph.pinned_memory import device_address, pinned_zeros
from tests.card import HAS_CARD, needs_card
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs for a card whose tables lie in a file, as constants."""
    path = tmp_path_factory.mktemp("whole")
    SCHEMA.save(path)
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "top_k", "k": 2}))
    facts = {"schema_fingerprint": SCHEMA.fingerprint()}
    for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE):
        packed = name == CUDA_PACKED_FILE
        graph = ServingGraph(ranker, "wide", one_request=not packed)
        write_onnx(graph, SCHEMA, path / name, facts, external_tables=True, packed=packed)
    return path


@pytest.fixture
def taken_out(whole: Path, tmp_path: Path) -> Path:
    """The same with the tables as inputs."""
    folder = tmp_path / "bundle"
    shutil.copytree(whole, folder)
    for name in (CUDA_MODEL_FILE, CUDA_PACKED_FILE):
        assert tables_as_inputs(folder / name) == ("table_VK",)
        onnx.checker.check_model(folder / name, full_check=True)
    return folder


def test_answers_are_those_of_tables_within_the_graph(whole: Path, taken_out: Path) -> None:
    tables = CardTables()
    engine = Engine(taken_out, file=CUDA_MODEL_FILE, tables=tables)
    packed = BatchedEngine(taken_out, file=CUDA_PACKED_FILE, tables=tables)
    assert "table_VK" not in {name for name, _, _ in engine.signature()}
    request = inputs(SCHEMA, 1, 70)
    expected = Engine(whole, file=CUDA_MODEL_FILE).predict(request)
    together = packed.predict([request, inputs(SCHEMA, 1, 3)])[0]
    for task, values in engine.predict(request).items():
        np.testing.assert_array_equal(values, expected[task])
        np.testing.assert_allclose(together[task], expected[task], atol=1e-6)


def test_graphs_of_a_bundle_share_one_copy_which_is_mapped_from_its_file(taken_out: Path) -> None:
    tables = CardTables()
    engine = Engine(taken_out, file=CUDA_MODEL_FILE, tables=tables)
    held = [tables.of(taken_out, engine.properties, cuda=False)["table_VK"] for _ in range(2)]
    assert held[0] is held[1]
    assert isinstance(held[0].array, np.memmap)


@pytest.mark.parametrize("rows", [5, 64, 5000])
def test_runs_in_fixed_sizes_and_beyond_them_are_given_the_tables(taken_out: Path, rows: int) -> None:
    engine = Engine(taken_out, file=CUDA_MODEL_FILE)
    runner = BucketRunner(engine._session, "cpu", tables=engine._tables)
    request = inputs(SCHEMA, 1, rows, seed=rows)
    answers = runner.run(engine.tasks, {name: request.arrays()[name] for name in engine.inputs})
    for task, found in zip(engine.tasks, answers, strict=True):
        np.testing.assert_allclose(found, engine.predict(request)[task], atol=1e-6)


def test_small_tables_stay_in_the_graph(tmp_path: Path) -> None:
    ranker = lively_ranker(SCHEMA, small_config(gate={"name": "softmax"}))
    write_onnx(ServingGraph(ranker, "wide"), SCHEMA, tmp_path / "model.onnx", {})
    assert tables_as_inputs(tmp_path / "model.onnx") == ()


def test_a_damaged_table_is_refused_with_what_to_do(taken_out: Path) -> None:
    engine = Engine(taken_out, file=CUDA_MODEL_FILE)
    (taken_out / TABLES_FILE).write_bytes(b"short")
    with pytest.raises(IntegrityError, match="export the model again"):
        Engine(taken_out, file=CUDA_MODEL_FILE)
    facts = json.loads(engine.properties[CARD_TABLES]) | {"x": {}}
    with pytest.raises(IntegrityError, match="is wrong"):
        CardTables().of(taken_out, {CARD_TABLES: json.dumps(facts)}, cuda=False)


@pytest.mark.skipif(HAS_CARD, reason="this machine has a card")
def test_without_a_card_pages_are_plain_memory() -> None:
    array = pinned_zeros((3, 5), np.int64)
    array[1, 2] = 7
    assert (array.sum(), array.shape, device_address(array)) == (7, (3, 5), None)


def test_pages_are_unlocked_before_they_go_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        def cudaHostRegister(self, *_: object) -> int:  # noqa: N802 the name is CUDA's
            return 0

        def cudaHostUnregister(self, address: ctypes.c_void_p) -> int:  # noqa: N802 the same
            spans = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
            held.append(any(int(first, 16) <= (address.value or 0) < int(end, 16) for first, end in spans))
            return 0

    held: list[bool] = []
    monkeypatch.setattr("serving.graph.pinned_memory._runtime", Runtime)
    array = pinned_zeros((4_000, 1_000), np.float32)
    view = array[1:]
    del array
    assert (held, view.sum()) == ([], 0)
    del view
    assert held == [True]


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("place", ["card", "host"])
def test_a_card_reads_tables_from_either_memory(taken_out: Path, place: str) -> None:
    tables = CardTables("card" if place == "card" else "host")
    engine = Engine(taken_out, file=CUDA_MODEL_FILE, device="cuda", tables=tables)
    held = tables.of(taken_out, engine.properties, cuda=True)["table_VK"]
    assert (held.on_card is None) == (place == "host")
    request = inputs(SCHEMA, 1, 70)
    for task, values in Engine(taken_out, file=CUDA_MODEL_FILE).predict(request).items():
        np.testing.assert_allclose(engine.predict(request)[task], values, atol=1e-4)
