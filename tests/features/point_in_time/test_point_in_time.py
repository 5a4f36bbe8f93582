"""What a row sees lies strictly before it: compared with a loop over the raw events."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.columns import TIME
from features.build import build
from features.source.query_engine import connect
from features.source.row_types import EVENT, KIND, ROW
from tests.features.raw_world import quiet, raw_tables, recipe, timeline_over, window_rows, write_raw

DAY_MS = 86_400_000


def states(directory: Path, **changes: Any) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """The timeline's events, and every state's rows."""
    write_raw(directory, raw_tables())
    config = recipe(directory, **changes)
    connection = connect("1GB", directory)
    timeline = timeline_over(connection, config, directory)
    events = connection.to_pyarrow(timeline.table.filter(timeline.table[KIND] == EVENT)).to_pylist()
    return events, window_rows(connection, timeline, config)


def test_exact_sums_count_only_strictly_earlier_events_of_the_same_key(tmp_path: Path) -> None:
    events, (rows,) = states(
        tmp_path, aggregates=[{"by": ["user"], "of": ["liked", "seconds"], "windows": ["all", "1d"]}]
    )
    found = {row[ROW]: row for row in rows}
    for event in events:
        before = [e for e in events if e["user"] == event["user"] and e[TIME] < event[TIME]]
        recent = [e for e in before if e[TIME] >= event[TIME] - DAY_MS]
        row = found[event[ROW]]
        assert row["user__count/n"] == len(before)
        assert row["user__liked_mean/sum"] == sum(e["liked"] for e in before)
        assert row["user__count_1d/n"] == len(recent)
        timed = [e["seconds"] for e in recent if e["seconds"] is not None]
        assert row["user__seconds_mean_1d/n"] == len(timed)
        assert float(row["user__seconds_mean_1d/sum"]) == pytest.approx(sum(timed), rel=1e-12)


def test_ties_at_one_moment_do_not_see_each_other(tmp_path: Path) -> None:
    events, _ = states(tmp_path, aggregates=[{"by": ["item"], "of": ["liked"]}])
    moments = [(e["item"], e[TIME]) for e in events]
    assert len(set(moments)) < len(moments), "the world has no ties, so this file proves nothing about them"


def test_daily_sums_end_with_the_previous_day_of_the_stated_time_zone(tmp_path: Path) -> None:
    source = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    events, (rows,) = states(
        tmp_path,
        events={**source, "time_zone": "Asia/Shanghai"},
        aggregates=[{"by": ["user", "maker"], "of": ["liked"], "as_of": "day", "windows": ["all", "2d"]}],
    )
    found = {(row["user"], row["maker"], row["__day"]): row for row in rows}

    def day(event: dict[str, Any]) -> int:
        return int((event[TIME] + 8 * 3_600_000) // DAY_MS)

    for event in (e for e in events if e["maker"] is not None):
        same = [e for e in events if (e["user"], e["maker"]) == (event["user"], event["maker"])]
        before = [e for e in same if day(e) < day(event)]
        row = found[event["user"], event["maker"], day(event)]
        assert row["user_x_maker__count/n"] == len(before)
        assert row["user_x_maker__count_2d/n"] == sum(day(e) >= day(event) - 2 for e in before)


def test_histories_hold_the_last_values_before_the_row(tmp_path: Path) -> None:
    history = {"name": "last", "of": "item", "by": "user", "last": 3, "where": "liked == 1"}
    events, (rows,) = states(tmp_path, aggregates=[], histories=[history])
    found = {row[ROW]: row["last"] for row in rows}
    for event in events:
        before = [e for e in events if e["user"] == event["user"] and e[TIME] < event[TIME] and e["liked"] == 1]
        last = [e["item"] for e in sorted(before, key=lambda e: (e[TIME], e[ROW]))][-3:]
        assert found.get(event[ROW], []) == last


def test_events_of_the_past_count_but_never_train(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    past = raw_tables(rows=60, seed=3)["events"].select(["user", "item", "liked"])
    pq.write_table(past, tmp_path / "past.parquet")
    events, (rows,) = states(
        tmp_path, past={"path": str(tmp_path / "past.parquet")}, aggregates=[{"by": ["user"], "of": ["liked"]}]
    )
    found = {row[ROW]: row for row in rows}
    first = min(events, key=lambda e: (e[TIME], e[ROW]))
    assert len(events) == 500
    assert found[first[ROW]]["user__count/n"] == past["user"].to_pylist().count(first["user"])


def test_times_keep_their_milliseconds(tmp_path: Path) -> None:
    tables = raw_tables()
    seconds = tables["events"]["at"].to_numpy()
    moments = seconds + (np.arange(len(seconds)) * 377 % 1000).astype("timedelta64[ms]")
    events = tables["events"].set_column(2, "at", pa.array(moments, pa.timestamp("ms", "UTC")))
    write_raw(tmp_path, {**tables, "events": events})
    config = recipe(tmp_path)
    connection = connect("1GB", tmp_path)
    timeline = timeline_over(connection, config, tmp_path)
    found = connection.to_pyarrow(timeline.table.filter(timeline.table[KIND] == EVENT))[TIME].to_numpy()
    assert np.array_equal(np.sort(found), np.sort(moments.astype("datetime64[ms]").astype(np.int64)))


def test_building_twice_gives_the_same_bytes(tmp_path: Path, built: Path) -> None:
    write_raw(tmp_path, raw_tables())
    build(recipe(tmp_path), tmp_path / "again", quiet)
    for path in sorted(p for p in built.rglob("*") if p.is_file()):
        other = tmp_path / "again" / path.relative_to(built)
        assert other.read_bytes() == path.read_bytes(), path.name


def test_training_rows_are_in_random_order(built: Path) -> None:
    times = pq.read_table(built / "train")["__time"].to_numpy()
    assert abs(np.corrcoef(times, np.arange(len(times)))[0, 1]) < 0.15
