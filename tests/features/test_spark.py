"""Spark runs the same expressions to the same rows; skipped where PySpark or Java is missing."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.incremental.compute_rows import compute_rows
from features.incremental.raw_rows import PartitionRows, history_names
from features.point_in_time.feature_plan import plan_features
from features.source.query_engine import connect
from tests.features.raw_world import quiet, raw_tables, recipe, timeline_over, write_raw

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
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
        histories=[{"name": "last", "of": "item", "by": "user", "last": 3, "columns": {"last_from": "surface"}}],
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


def test_every_row_is_the_same_on_spark_and_on_duckdb(tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="PySpark is not installed: pip install pyspark==4.3.0")
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
            # The engines' logarithms differ in the last bit; everything else is equal.
            log, same_log = one.pop("label__watch", None), other.pop("label__watch", None)
            assert log == same_log or math.isclose(log, same_log, rel_tol=1e-15)
            assert one == other, name
    assert len(ours["rows.parquet"]) > 200
