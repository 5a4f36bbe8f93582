"""A small raw world with strings, nulls, lists and ties in time, written as Parquet, and its recipe."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature_config import FeaturesConfig
from features.incremental.partition_store import PartitionStore
from features.incremental.reuse import plan_work
from features.point_in_time.aggregates import compute_windows
from features.point_in_time.histories import find_histories
from features.point_in_time.timeline import Timeline, build_timeline
from features.source.entities import read_sources
from features.source.query_engine import Backend, to_arrow
from features.source.row_types import ROW

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS = 6
LAST_DAY = f"{DAYS - 1}"


def raw_tables(rows: int = 500, seed: int = 7) -> dict[str, pa.Table]:
    """Events of 25 users (strings) on 40 items (integers) over six days, many at the same second."""
    draw = np.random.default_rng(seed)
    seconds = np.sort(draw.integers(0, DAYS * 86_400, rows) // 600 * 600)
    events = {
        "user": [f"u{i}" for i in draw.integers(0, 25, rows)],
        "item": draw.integers(0, 40, rows).astype(np.int32),
        "at": pa.array([START + timedelta(seconds=int(s)) for s in seconds], pa.timestamp("ms", "UTC")),
        "surface": [("home", "search", None)[i] for i in draw.integers(0, 3, rows)],
        "day": (seconds // 86_400).astype(np.int64),
        "liked": draw.integers(0, 2, rows).astype(np.int8),
        "seconds": pa.array([None if draw.random() < 0.1 else float(v) for v in draw.gamma(2.0, 9.0, rows)]),
    }
    users = {"user": [f"u{i}" for i in range(27)], "age": [None if i % 5 == 0 else 20.0 + i for i in range(27)]}
    items = {
        "item": np.arange(42, dtype=np.int64),
        "maker": [f"m{i % 6}" if i % 7 else None for i in range(42)],
        "tags": [[f"t{j}" for j in range(i % 4)] for i in range(42)],
    }
    return {"events": pa.table(events), "users": pa.table(users), "items": pa.table(items)}


def write_raw(directory: Path, tables: dict[str, pa.Table]) -> None:
    """Write the tables as ``events.parquet`` and so on."""
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet")


def recipe(directory: Path, **changes: Any) -> FeaturesConfig:
    """A recipe over the raw world; `changes` replace whole blocks."""
    blocks: dict[str, Any] = {
        "events": {"path": str(directory / "events.parquet"), "user": "user", "item": "item", "time": "at"},
        "users": {"path": str(directory / "users.parquet"), "key": "user"},
        "items": {"path": str(directory / "items.parquet"), "key": "item"},
        "features": [
            {"name": "user"},
            {"name": "age", "kind": "dense"},
            {"name": "surface"},
            {"name": "item", "min_count": 3},
            {"name": "maker", "encoding": "hash", "buckets": 50},
            {"name": "tags", "kind": "id_list", "max_length": 2},
        ],
        "aggregates": [
            {"by": ["user"], "of": ["liked", "seconds"], "as_of": "day", "windows": ["all", "2d"]},
            {"by": ["item"], "of": ["like"], "as_of": "day"},
            {"by": ["maker"], "of": ["like"], "as_of": "day"},
            {"by": ["user", "maker"], "of": ["like"], "as_of": "day"},
            {"by": ["item", "surface"], "of": ["like"], "as_of": "day"},
            {"by": ["user", "surface"], "of": ["like"], "as_of": "day"},
        ],
        "tasks": [
            {"name": "like", "kind": "binary", "label": "liked == 1"},
            {"name": "watch", "kind": "regression", "label": "log1p(seconds)", "where": "liked == 1"},
        ],
        "split": {"by": "expression", "valid": f"day == {LAST_DAY}"},
    }
    return FeaturesConfig.model_validate({**blocks, **changes})


def timeline_over(connection: Backend, config: FeaturesConfig, scratch: Path) -> Timeline:
    """The timeline of a whole log."""
    sources = read_sources(connection, config)
    work = plan_work(connection, sources, config, PartitionStore(scratch / "days"))
    return build_timeline(connection, config, sources, work.span, scratch, None)


def quiet(_: str) -> None:
    """Take progress and say nothing."""


def window_rows(connection: Backend, timeline: Timeline, config: FeaturesConfig) -> list[list[dict[str, Any]]]:
    """The rows of every aggregate's sums, and by row number those lists of every history that hold something."""
    sums = [to_arrow(connection, window.table).to_pylist() for window in compute_windows(connection, timeline, config)]
    lists = []
    for history in find_histories(connection, timeline, config):
        numbers = np.arange(len(history.rows.ends))
        rows = pa.table({ROW: numbers, **history.lists(numbers)}).to_pylist()
        lists.append([row for row in rows if any(row[name] for name in history.values)])
    return sums + lists
