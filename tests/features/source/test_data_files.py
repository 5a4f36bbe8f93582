"""Folders as Spark, Hive and Delta write them: what is data, and what a folder's name says."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.source.data_files import find_data, find_files
from features.source.query_engine import connect, to_arrow
from features.source.tables import read_table
from features.table_config import TableConfig


def write(path: Path, rows: int = 1, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": list(range(rows)), **columns}), path)


def rows_of(path: Path | str, directory: Path) -> pa.Table:
    connection = connect("1GB", directory)
    return to_arrow(connection, read_table(connection, TableConfig(path=str(path)), "data.events", {"a", "page"}))


@pytest.mark.parametrize(
    "hidden",
    ["_temporary/0/attempt_1/part-0.parquet", ".spark-staging-1/dt=1/x.parquet", "_delta_log/00.checkpoint.parquet",
     "._part-0.parquet", "_metadata.parquet", "sub/_committed/x.parquet", "sub/.hoodie/x.parquet"],
)  # fmt: skip
def test_what_begins_with_an_underscore_or_a_dot_is_no_data(tmp_path: Path, hidden: str) -> None:
    write(tmp_path / "log" / "part-0.parquet")
    write(tmp_path / "log" / hidden)
    (tmp_path / "log" / "_SUCCESS").touch()
    for path in (tmp_path / "log", tmp_path / "log" / "**" / "*.parquet"):
        assert find_files(str(path), "here") == [str(tmp_path / "log" / "part-0.parquet")]


def test_a_hidden_name_that_the_recipe_says_is_meant(tmp_path: Path) -> None:
    write(tmp_path / "_old" / ".x.parquet")
    assert len(find_files(str(tmp_path / "_old" / ".x.parquet"), "here")) == 1


def test_a_partition_may_begin_with_an_underscore(tmp_path: Path) -> None:
    write(tmp_path / "log" / "_day=1" / "x.parquet")
    assert rows_of(tmp_path / "log", tmp_path)["_day"].to_pylist() == [1]


def test_links_are_followed_but_a_file_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "2.parquet")
    write(tmp_path / "log" / "1.parquet")
    (tmp_path / "log" / "latest.parquet").symlink_to("1.parquet")
    (tmp_path / "log" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / "circle").symlink_to(tmp_path / "log")
    assert [Path(f).name for f in find_files(str(tmp_path / "log"), "here")] == ["1.parquet", "2.parquet"]
    (tmp_path / "link").symlink_to(tmp_path / "log")
    assert len(find_files(str(tmp_path / "link"), "here")) == 2


def test_partitions_are_columns_of_their_values_type(tmp_path: Path) -> None:
    for day, page in ((1, "home"), (2, "a%20b"), (3, "__HIVE_DEFAULT_PARTITION__")):
        write(tmp_path / "log" / f"dt=2026-03-0{day}" / f"page={page}" / f"number={day}" / "x.parquet")
    found = rows_of(tmp_path / "log", tmp_path).sort_by("dt")
    assert found["dt"].to_pylist() == [date(2026, 3, day) for day in (1, 2, 3)]
    assert found["page"].to_pylist() == ["home", "a b", None]
    assert found["number"].to_pylist() == [1, 2, 3]


def test_a_partitions_type_holds_all_its_values(tmp_path: Path) -> None:
    for value in ("1", "007", "x"):
        write(tmp_path / "log" / f"page={value}" / "x.parquet")
    assert sorted(rows_of(tmp_path / "log", tmp_path)["page"].to_pylist()) == ["007", "1", "x"]


@pytest.mark.parametrize("path", ["trial/page=v2/log.parquet", "trial/page=v2", "trial/page=v2/*.parquet"])
def test_what_stands_in_the_path_itself_is_no_partition(tmp_path: Path, path: str) -> None:
    write(tmp_path / "trial" / "page=v2" / "log.parquet", page=["home"])
    assert rows_of(tmp_path / path, tmp_path)["page"].to_pylist() == ["home"]


def test_a_part_of_a_pattern_is_a_partition(tmp_path: Path) -> None:
    write(tmp_path / "log" / "dt=2026-03-01" / "x.parquet")
    assert rows_of(f"{tmp_path}/log/dt=*/*.parquet", tmp_path)["dt"].to_pylist() == [date(2026, 3, 1)]


def test_a_folder_that_contradicts_its_file_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "log" / "page=v2" / "x.parquet", page=["home"])
    with pytest.raises(DataError, match=r"partition page=v2, but its column 'page' has home"):
        rows_of(tmp_path / "log", tmp_path)


def test_a_folder_that_agrees_with_its_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "log" / "page=home" / "x.parquet", page=["home"])
    assert rows_of(tmp_path / "log", tmp_path)["page"].to_pylist() == ["home"]


@pytest.mark.parametrize(
    ("folder", "value"),
    [("03", 3), ("03", "03"), ("3", "3"), ("true", True), ("2026-03-01", date(2026, 3, 1))],
)
def test_a_column_that_its_folder_says_too_keeps_its_own_type(tmp_path: Path, folder: str, value: object) -> None:
    write(tmp_path / "log" / f"page={folder}" / "x.parquet", page=[value])
    assert rows_of(tmp_path / "log", tmp_path)["page"].to_pylist() == [value]


def test_a_number_that_its_folder_says_otherwise_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "log" / "page=04" / "x.parquet", page=[3])
    with pytest.raises(DataError, match=r"partition page=04, but its column 'page' has 3"):
        rows_of(tmp_path / "log", tmp_path)


def test_a_column_that_a_part_of_the_path_would_override_is_refused_beside_partitions(tmp_path: Path) -> None:
    write(tmp_path / "page=v2" / "log" / "dt=1" / "x.parquet", page=["home"])
    with pytest.raises(DataError, match=r"column 'page' .* stands in the path itself"):
        rows_of(tmp_path / "page=v2" / "log", tmp_path)


def test_files_in_differently_named_partitions_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "log" / "dt=1" / "x.parquet")
    write(tmp_path / "log" / "x.parquet")
    with pytest.raises(DataError, match="all files of a table need the same"):
        find_data(str(tmp_path / "log"), "here").partitions()


def test_a_folder_of_other_files_says_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "log.csv").touch()
    with pytest.raises(DataError, match=r"must end in \.parquet.*log\.csv"):
        find_files(str(tmp_path), "here")
