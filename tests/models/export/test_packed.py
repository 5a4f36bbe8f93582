"""Packed graphs: several requests in one run, each answered as if it were alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from contract.errors import ExportError, IntegrityError, PredictionError
from contract.graph_names import REQUEST_OF
from contract.inputs import Inputs
from contract.prepared import taken
from contract.schema import IdSpec
from models.export import ExportReport, export
from models.export.batched_export import export_packed
from models.ranker import Ranker
from serving.graph.batched_graph import BatchedEngine, joined
from serving.graph.engine import Engine
from tests.models.small import inputs, lively_ranker, small_config, small_schema

SCHEMA = small_schema()
TOP_K = {"name": "top_k", "k": 2}
OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"gate": {"name": "softmax"}}, "dense"),
    ({"gate": TOP_K, "bottom": (8,), "gate_scope": "shared"}, "sparse"),
    ({"gate": TOP_K, "routing": "user"}, "sparse"),
    ({"gate": TOP_K, "routing": "context"}, "dense"),
    ({"gate": TOP_K, "routing": "static"}, "auto"),
    ({"gate": {"name": "hash", "feature": "user"}}, "sparse"),
    ({"gate": {"name": "dselect_k", "k": 2}}, "sparse"),
    ({"gate": {"name": "comet", "k": 2}, "interaction": {"name": "dcn_v2"}}, "sparse"),
    ({"gate": TOP_K, "architecture": {"name": "ple"}}, "sparse"),
]


def both(folder: Path, changes: dict[str, Any], form: Any) -> tuple[Ranker, ExportReport]:
    ranker, rows = lively_ranker(SCHEMA, small_config(**changes)), inputs(SCHEMA, 100, 100)
    report = export(ranker, SCHEMA, rows, folder / "model.onnx", form, external_tables=True)
    parity = export_packed(ranker, report, rows, folder / "packed.onnx")
    assert parity.rows >= 2000
    assert parity.worst <= 1e-5
    return ranker, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both graphs of a sparse ranker, as they lie in a bundle."""
    folder = tmp_path_factory.mktemp("packed")
    SCHEMA.save(folder)
    both(folder, {"gate": TOP_K}, "sparse")
    return folder


def test_both_graphs_read_one_file_of_tables(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "packed.onnx", "schema.json", "tables.bin"]


def test_requests_of_any_number_and_size_are_answered_as_alone(folder: Path) -> None:
    engine, packed = Engine(folder), BatchedEngine(folder)
    for sizes in ([1], [3, 1, 40], list(range(1, 20))):
        requests = [inputs(SCHEMA, 1, size, seed=place) for place, size in enumerate(sizes)]
        for alone, among in zip([engine.predict(r) for r in requests], packed.predict(requests), strict=True):
            for task, values in alone.items():
                np.testing.assert_allclose(among[task], values, atol=1e-6, rtol=1e-6)


def test_candidates_need_not_lie_request_by_request(folder: Path) -> None:
    session = onnxruntime.InferenceSession(str(folder / "packed.onnx"))
    given, names = inputs(SCHEMA, 4, 30, seed=5), [task.name for task in SCHEMA.tasks]
    of = np.random.default_rng(0).integers(0, 4, 30)
    answers = session.run(names, {n.name: {**given.arrays(), REQUEST_OF: of}[n.name] for n in session.get_inputs()})
    expected = Engine(folder).predict(Inputs(taken(given.request, of), given.candidate))
    np.testing.assert_allclose(answers, [expected[name] for name in names], atol=1e-6, rtol=1e-6)


def test_a_candidate_of_no_request_is_an_error(folder: Path) -> None:
    given = inputs(SCHEMA, 2, 3)
    with pytest.raises(PredictionError, match="could not run"):
        BatchedEngine(folder).engine.run({**given.arrays(), REQUEST_OF: np.array([0, 1, 2])}, 3)


def test_a_directory_without_a_packed_graph_is_refused(folder: Path, tmp_path: Path) -> None:
    SCHEMA.save(tmp_path)
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    with pytest.raises(IntegrityError, match=r"packed\.onnx"):
        BatchedEngine(tmp_path)


def test_a_packed_graph_in_place_of_the_plain_one_is_refused(folder: Path, tmp_path: Path) -> None:
    SCHEMA.save(tmp_path)
    for source, target in (("packed.onnx", "model.onnx"), ("tables.bin", "tables.bin")):
        (tmp_path / target).write_bytes((folder / source).read_bytes())
    with pytest.raises(IntegrityError, match="candidate_request"):
        Engine(tmp_path)


def test_rows_are_taken_and_joined_with_their_lists() -> None:
    whole = inputs(SCHEMA, 6, 9, seed=2).request
    pieces = [taken(whole, np.array(rows)) for rows in ([4], [0, 5, 5], [1])]
    again = joined(pieces)
    expected = taken(whole, np.array([4, 0, 5, 5, 1]))
    for name in ("ids", "list_values", "list_lengths", "dense"):
        np.testing.assert_array_equal(getattr(again, name), getattr(expected, name))
    assert again.list_lengths.sum() == len(again.list_values)


@pytest.mark.long
@pytest.mark.parametrize(("changes", "form"), OTHERS)
def test_every_kind_of_gate_packs(changes: dict[str, Any], form: str, tmp_path: Path) -> None:
    both(tmp_path, changes, form)


@pytest.mark.long
def test_a_schema_of_one_side_has_nothing_to_pack(tmp_path: Path) -> None:
    schema = small_schema(features=(IdSpec(name="a", kind="id", side="item", rows=9),))
    ranker, rows = lively_ranker(schema, small_config(gate=TOP_K)), inputs(schema, 50, 50)
    report = export(ranker, schema, rows, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="no request features"):
        export_packed(ranker, report, rows, tmp_path / "packed.onnx")
