"""Of a Delta table the live files are read, and what would be read wrongly is refused."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.source.data_files import find_data

Actions = list[dict[str, Any]]
PROTOCOL = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}


def metadata(partitions: list[str] | None = None, **settings: str) -> dict[str, Any]:
    format_ = {"provider": "parquet", "options": {}}
    return {"metaData": {"id": "t", "format": format_, "partitionColumns": partitions or [], "configuration": settings}}


def add(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """Write a file and the action that adds it."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": [1]}), folder / name)
    return {"add": {"path": name.replace(" ", "%20"), "partitionValues": {}, "size": 1, "dataChange": True, **more}}


def remove(name: str) -> dict[str, Any]:
    return {"remove": {"path": name, "dataChange": True}}


def commit(folder: Path, version: int, actions: Actions) -> None:
    log = folder / "_delta_log"
    log.mkdir(exist_ok=True)
    (log / f"{version:020}.json").write_text("\n".join(json.dumps(action) for action in actions), encoding="utf-8")


def names(folder: Path) -> list[str]:
    return [Path(file).relative_to(folder).as_posix() for file in find_data(str(folder), "data.events").files]


def test_a_removed_file_that_still_lies_there_is_not_read(tmp_path: Path) -> None:
    commit(tmp_path, 0, [PROTOCOL, metadata(), add(tmp_path, "a.parquet"), add(tmp_path, "b c.parquet")])
    commit(tmp_path, 1, [{"commitInfo": {"operation": "UPDATE"}}, remove("a.parquet"), add(tmp_path, "d.parquet")])
    (tmp_path / "_delta_log" / "_last_checkpoint.tmp").touch()
    assert names(tmp_path) == ["b c.parquet", "d.parquet"]


def test_the_log_begins_at_its_last_checkpoint(tmp_path: Path) -> None:
    added = add(tmp_path, "b.parquet")["add"]
    rows = [
        {"protocol": PROTOCOL["protocol"], "metaData": None, "add": None, "remove": None},
        {"protocol": None, "metaData": {"partitionColumns": []}, "add": None, "remove": None},
        {"protocol": None, "metaData": None, "add": {"path": added["path"]}, "remove": None},
        {"protocol": None, "metaData": None, "add": None, "remove": {"path": "old.parquet"}},
    ]
    (tmp_path / "_delta_log").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "_delta_log" / f"{10:020}.checkpoint.parquet")
    commit(tmp_path, 11, [add(tmp_path, "c.parquet")])
    add(tmp_path, "old.parquet")
    assert names(tmp_path) == ["b.parquet", "c.parquet"]


def test_folders_of_a_table_are_its_partitions(tmp_path: Path) -> None:
    commit(tmp_path, 0, [PROTOCOL, metadata(["dt"]), add(tmp_path, "dt=2026-03-01/a.parquet")])
    assert find_data(str(tmp_path), "data.events").partitions() == {"dt": ["2026-03-01"]}


def test_a_table_behind_a_url_is_read_by_its_log(tmp_path: Path) -> None:
    commit(tmp_path, 0, [PROTOCOL, metadata(), add(tmp_path, "a.parquet")])
    commit(tmp_path, 1, [remove("a.parquet"), add(tmp_path, "b.parquet")])
    far = fsspec.filesystem("memory")
    far.put(str(tmp_path), "/delta_table", recursive=True)
    try:
        assert find_data("memory://delta_table", "data.events").files == ("memory://delta_table/b.parquet",)
    finally:
        far.rm("/delta_table", recursive=True)


@pytest.mark.parametrize(
    ("actions", "named"),
    [
        ([{"protocol": {"minReaderVersion": 3, "readerFeatures": ["v2Checkpoint"]}}, metadata()], "v2Checkpoint"),
        ([PROTOCOL, metadata(None, **{"delta.columnMapping.mode": "name"})], "columnMapping"),
    ],
)
def test_what_the_reader_does_not_know_is_named(tmp_path: Path, actions: Actions, named: str) -> None:
    commit(tmp_path, 0, [*actions, add(tmp_path, "a.parquet")])
    with pytest.raises(DataError, match=f"uses {named}, which this reader does not know"):
        find_data(str(tmp_path), "data.events")


def test_deletion_vectors_are_refused_only_where_there_are_any(tmp_path: Path) -> None:
    allowed = {"protocol": {"minReaderVersion": 3, "readerFeatures": ["deletionVectors"]}}
    commit(tmp_path, 0, [allowed, metadata(), add(tmp_path, "a.parquet")])
    assert names(tmp_path) == ["a.parquet"]
    commit(tmp_path, 1, [add(tmp_path, "a.parquet", deletionVector={"storageType": "u", "cardinality": 1})])
    with pytest.raises(DataError, match="uses deletionVectors"):
        names(tmp_path)


def test_a_log_with_a_gap_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, 0, [PROTOCOL, metadata(), add(tmp_path, "a.parquet")])
    commit(tmp_path, 2, [add(tmp_path, "b.parquet")])
    with pytest.raises(DataError, match="lacks commits after its begin"):
        names(tmp_path)
