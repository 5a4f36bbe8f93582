"""Spark runs the same expressions to the same rows; skipped where PySpark or Java is missing."""

import math
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedDataset
from contract.errors import DataError
from features.build import FeatureBuild, build
from features.incremental.compute_rows import compute_rows
from features.incremental.raw_rows import PartitionRows, history_names
from features.point_in_time.feature_plan import plan_features
from features.source.query_engine import connect, numbered, read_parquet, record_batches, row_hash, to_arrow
from tests.features.incremental.test_increment import EVERYTHING, days, late, made, moved
from tests.features.raw_world import DAYS, quiet, raw_tables, recipe, timeline_over, write_raw

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17, and there is no java on the path"),
]


def raw_values_of(directory: Path, engine: str) -> dict[str, list[dict[str, Any]]]:
    """All staged rows by file, in an order that does not depend on the engine."""
    config = recipe(
        directory,
        aggregates=[
            {"by": ["user"], "of": ["liked", "seconds"], "as_of": "day", "windows": ["all", "2d"], "since": True},
            {"by": ["user", "maker"], "of": ["like"], "as_of": "hour", "windows": ["1d"]},
            {"by": ["item"], "of": ["liked"]},
        ],
        histories=[
            {
                "name": "last",
                "of": "item",
                "by": "user",
                "last": 3,
                "columns": {"last_from": "surface"},
                "elapsed": "ago",
            }
        ],
        crosses=[{"name": "c", "of": ["surface", "maker"]}],
        split={"by": "time", "valid": "1d", "embargo": "1h"},
    )
    raw = directory / engine
    raw.mkdir()
    connection = connect("1GB", raw, engine=engine, master="local[2]")
    timeline = timeline_over(connection, config, raw)
    planned = plan_features(config, timeline.ownership)
    compute_rows(connection, timeline, planned, config, [(0, raw / "rows.parquet")], raw, quiet)
    rows = PartitionRows(raw / "rows.parquet", history_names(config))
    tables = {path.name: pa.ipc.open_file(path).read_all() for path in raw.glob("probe_*.arrow")}
    tables["rows.parquet"] = rows.read(rows.schema.names)
    return {
        name: sorted(table.to_pylist(), key=lambda row: [str(row[name]) for name in sorted(row)])
        for name, table in sorted(tables.items())
    }


def _is_close(one: Any, other: Any) -> bool:
    return isinstance(one, float | Decimal) and math.isclose(one, other, rel_tol=1e-14)


@pytest.fixture(autouse=True)
def _needs_pyspark() -> None:
    pytest.importorskip("pyspark", reason="PySpark is not installed: pip install pyspark==4.3.0")


def test_every_row_is_the_same_on_spark_and_on_duckdb(tmp_path: Path) -> None:
    tables = raw_tables(rows=300)
    events = (
        tables["events"]
        .group_by(["user", "item", "at"], use_threads=False)
        .aggregate([(name, "first") for name in ("surface", "day", "liked", "seconds")])
    )
    events = events.rename_columns([name.removesuffix("_first") for name in events.column_names])
    moments = events["at"].to_numpy() + (np.arange(len(events)) % 997).astype("timedelta64[ms]")
    events = events.set_column(2, "at", pa.array(moments, pa.timestamp("ms", "UTC")))
    write_raw(tmp_path, {**tables, "events": events})
    ours, theirs = (raw_values_of(tmp_path, engine) for engine in ("duckdb", "spark"))
    assert ours.keys() == theirs.keys()
    for name, rows in ours.items():
        assert len(rows) == len(theirs[name])
        for one, other in zip(rows, theirs[name], strict=True):
            # The engines' logarithms, and the last digits of a fraction as a decimal, differ; everything else is equal.
            assert [n for n in one if one[n] != other[n] and not _is_close(one[n], other[n])] == [], name
    assert len(ours["rows.parquet"]) > 200


def test_all_tasks_number_rows_and_the_numbers_go_on_from_task_to_task(tmp_path: Path) -> None:
    connection = connect("1GB", tmp_path, engine="spark", master="local[2]")
    rows = pa.table({"place": list(range(5_000)), "tie": [None if n % 7 == 0 else n % 3 for n in range(5_000)]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    table = read_parquet(connection, [str(tmp_path / "rows.parquet")])
    found = to_arrow(connection, numbered(connection, "some", table, "number", ["tie", "place"], 100))
    assert sorted(found["number"].to_pylist()) == list(range(100, 5_100))
    in_order = found.sort_by("number").select(["tie", "place"])
    assert in_order == rows.sort_by([("tie", "ascending"), ("place", "ascending")]).select(["tie", "place"])
    streamed = list(record_batches(connection, table.order_by(table["place"].desc()), 1_000))
    assert [n for batch in streamed for n in batch["place"].to_pylist()] == list(range(5_000))[::-1]
    assert not list(tmp_path.glob("spark-*/part-*")) or len(list(tmp_path.glob("spark-*"))) == 1
    connection.disconnect()


def test_the_hash_of_a_row_tells_which_value_is_missing(tmp_path: Path) -> None:
    connection = connect("1GB", tmp_path, engine="spark", master="local[2]")
    rows = [
        {"a": 1, "b": None, "c": [1, None]},
        {"a": None, "b": 1, "c": [1, None]},
        {"a": 1, "b": None, "c": [None, 1]},
        {"a": 1, "b": None, "c": []},
        {"a": 1, "b": None, "c": None},
        {"a": 1, "b": None, "c": [1, None]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    table = read_parquet(connection, [str(tmp_path / "rows.parquet")])
    hashes = to_arrow(connection, table.select(hash=row_hash(connection, table, ["a", "b", "c"])))["hash"].to_pylist()
    assert len(set(hashes)) == 5
    assert hashes[0] == hashes[5]
    connection.disconnect()


def on_spark(directory: Path, tables: dict[str, pa.Table], **changes: Any) -> FeatureBuild:
    """Build the tables in a directory, with a partition a day."""
    directory.mkdir(exist_ok=True)
    write_raw(directory, tables)
    path = str(directory / "events.parquet")
    events = {"path": path, "user": "user", "item": "item", "time": "at", "partition_rows": 1}
    blocks = {**EVERYTHING, "engine": "spark", "spark_master": "local[2]", "memory_limit": "1GB", **changes}
    return build(recipe(directory, **{**blocks, "events": events}), directory / "features", quiet)


def test_days_that_come_one_after_another_on_spark_are_the_whole_log_byte_for_byte(tmp_path: Path) -> None:
    tables = raw_tables(rows=300)
    assert on_spark(tmp_path / "grown", days(tables, DAYS - 2)).days_built == DAYS - 2
    for count in (DAYS - 1, DAYS):
        grown = on_spark(tmp_path / "grown", days(tables, count))
        assert (grown.days_reused, grown.days_built) == (count - 1, 1)
    on_spark(tmp_path / "whole", tables)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")
    # A row late by two days, and then another age of a user, open the days from there on.
    tables = late(tables, 3)
    told = on_spark(tmp_path / "grown", tables).reuse
    assert told == f"3 days reused, {DAYS - 3} built: 1 late rows"
    users = tables["events"]["user"].to_pylist()
    latest = max(set(users), key=users.index)
    first = tables["events"]["day"][users.index(latest)].as_py()
    told = on_spark(tmp_path / "grown", moved(tables, latest)).reuse
    assert told.startswith(f"{first} days reused, {DAYS - first} built: attributes of users or items")


def test_sampled_negatives_on_spark_are_those_of_duckdb(tmp_path: Path) -> None:
    rows = []
    for engine in ("duckdb", "spark"):
        folder = tmp_path / engine
        blocks = {"aggregates": [], "histories": [], "crosses": [], "negatives": {"per_event": 1}}
        on_spark(
            folder, raw_tables(rows=200), **blocks, split={"by": "user_time", "valid": 1, "test": 1}, engine=engine
        )
        columns = ["__time", "user", "item", "label__like"]
        train = EncodedDataset.open(folder / "features" / "train").read(columns)
        rows.append(train.sort_by([(name, "ascending") for name in columns]))
    assert rows[0].num_rows > 200
    assert rows[0].equals(rows[1])


def test_a_sum_that_is_too_large_is_told_on_spark_as_an_error_of_the_data(tmp_path: Path) -> None:
    tables = raw_tables(rows=100)
    huge = pa.array([1e300] * 100)
    events = tables["events"].set_column(tables["events"].column_names.index("seconds"), "seconds", huge)
    with pytest.raises(DataError, match="seconds"):
        on_spark(tmp_path, {**tables, "events": events})
