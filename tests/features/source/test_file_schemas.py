"""Files of one table may store the same things differently; what loses something is refused by column and file."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.source.query_engine import connect, to_arrow
from features.source.tables import read_table
from features.table_config import TableConfig

AT = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
CLOCK = AT.replace(tzinfo=None)


def table_of(directory: Path, *columns: pa.Array, used: set[str] | None = None) -> pa.Table:
    """Files that hold the column `a`, read as one."""
    for place, column in enumerate(columns):
        pq.write_table(pa.table({"a": column, "n": [place] * len(column)}), directory / f"{place}.parquet")
    connection = connect("1GB", directory)
    config = TableConfig(path=str(directory))
    return to_arrow(connection, read_table(connection, config, "data.events", {"a"} if used is None else used))


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40]), [1, 2**40]),
        (pa.array([200], pa.uint8()), pa.array([-1], pa.int16()), [200, -1]),
        (pa.array([1], pa.uint32()), pa.array([2**33], pa.uint64()), [1, 2**33]),
        (pa.array([1.5], pa.float32()), pa.array([0.1]), [1.5, 0.1]),
        (pa.array([7]), pa.array([None, 8.0]), [7.0, None, 8.0]),
        (pa.array(["x"]), pa.array(["y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x"]), pa.array(["y"]).dictionary_encode(), ["x", "y"]),
        (pa.array([AT], pa.timestamp("us", "UTC")), pa.array([AT], pa.timestamp("ns", "Etc/UTC")), [AT, AT]),
        (pa.array([AT], pa.timestamp("ms", "+00:00")), pa.array([AT], pa.timestamp("us", "Europe/Berlin")), [AT, AT]),
        (pa.array([CLOCK], pa.timestamp("ns")), pa.array([CLOCK], pa.timestamp("ms")), [CLOCK, CLOCK]),
        (pa.array([AT.date()], pa.date32()), pa.array([AT.date()], pa.date64()), [date(2026, 3, 1)] * 2),
        (pa.array([1.25]).cast(pa.decimal128(10, 2)), pa.array([1.5]).cast(pa.decimal128(20, 4)), [1.25, 1.5]),
        (pa.array([5.0]).cast(pa.decimal128(10, 0)), pa.array([6]), [5, 6]),
        (pa.array([5], pa.decimal128(20, 0)), pa.array([2**64 - 1], pa.decimal128(20, 0)), [5, 2**64 - 1]),
        (pa.array([5], pa.decimal128(20, 0)), pa.array([2**63], pa.uint64()), [5, 2**63]),
        (pa.array([-5], pa.decimal128(38, 0)), pa.array([2**63 - 1], pa.decimal128(38, 0)), [-5, 2**63 - 1]),
        (pa.array([None], pa.null()), pa.array(["x"]), [None, "x"]),
        (pa.array([[1]], pa.list_(pa.int32())), pa.array([[2]], pa.large_list(pa.int64())), [[1], [2]]),
        (pa.array([[1.0]], pa.list_(pa.float32(), 1)), pa.array([[2.0, 3.0]]), [[1.0], [2.0, 3.0]]),
        (pa.array([{"b": 1}]), pa.array([{"b": 2, "c": "x"}]), [{"b": 1, "c": None}, {"b": 2, "c": "x"}]),
    ],
)
def test_types_widen_where_nothing_is_lost(tmp_path: Path, one: pa.Array, other: pa.Array, values: list[Any]) -> None:
    assert table_of(tmp_path, one, other)["a"].to_pylist() == values


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1]), pa.array(["1"])),
        (pa.array([True]), pa.array([1])),
        (pa.array([2**60]), pa.array([1.5])),
        (pa.array([-1]), pa.array([2**63], pa.uint64())),
        (pa.array([AT], pa.timestamp("us", "UTC")), pa.array([CLOCK], pa.timestamp("us"))),
        (pa.array([AT.date()]), pa.array([CLOCK], pa.timestamp("us"))),
        (pa.array([[1]]), pa.array([["x"]])),
        (pa.array([{"b": 1}]), pa.array([{"b": "x"}])),
    ],
)
def test_types_that_none_holds_are_refused_by_column_and_file(tmp_path: Path, one: pa.Array, other: pa.Array) -> None:
    with pytest.raises(DataError, match=r"column 'a' is .* in .*1\.parquet, but .* in .*0\.parquet"):
        table_of(tmp_path, one, other)


@pytest.mark.parametrize("values", [[2**64], [-1, 2**63], [-(2**63) - 1]])
def test_decimals_beyond_64_bits_are_refused_by_their_value(tmp_path: Path, values: list[int]) -> None:
    with pytest.raises(DataError, match=rf"column 'a' of .*0\.parquet is decimal128\(38, 0\) and holds {values[-1]};"):
        table_of(tmp_path, pa.array(values, pa.decimal128(38, 0)))
    (tmp_path / "0.parquet").unlink()
    assert len(table_of(tmp_path, pa.array([1]))) == 1


def test_what_nothing_uses_may_differ(tmp_path: Path) -> None:
    assert len(table_of(tmp_path, pa.array([1]), pa.array(["1"]), used={"n"})) == 2


def test_a_column_that_some_files_lack_is_null_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"b": [3]}), tmp_path / "later.parquet")
    assert table_of(tmp_path, pa.array([1])).select(["a", "b"]).to_pylist() == [
        {"a": 1, "b": None},
        {"a": None, "b": 3},
    ]


@pytest.mark.parametrize("names", [["a", "a"], ["a", "A"]])
def test_a_column_twice_is_refused_though_engines_choose_one(tmp_path: Path, names: list[str]) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=names)
    pq.write_table(twice, tmp_path / "t.parquet")
    config = TableConfig(path=str(tmp_path / "t.parquet"))
    with pytest.raises(DataError, match="has the column 'a'"):
        read_table(connect("1GB", tmp_path), config, "data.events", {"a"})


def test_a_uuid_is_a_text(tmp_path: Path) -> None:
    ids = pa.array([(7).to_bytes(16, "big")], pa.uuid())
    assert table_of(tmp_path, ids)["a"].to_pylist() == ["00000000-0000-0000-0000-000000000007"]


def test_a_used_column_that_a_later_file_spells_otherwise_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "b": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"A": [2], "B": [2]}), tmp_path / "1.parquet")
    config = TableConfig(path=str(tmp_path))
    with pytest.raises(DataError, match=r"1\.parquet spells the column 'A', but .*0\.parquet 'a'"):
        read_table(connect("1GB", tmp_path), config, "data.events", {"a"})
