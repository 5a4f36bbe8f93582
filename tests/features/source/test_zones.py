"""Days begin at midnight on a zone's clocks, on the days that summer time makes shorter and longer too."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pytest

from contract.columns import TIME
from features.point_in_time.aggregates import compute_windows
from features.source.query_engine import connect, to_arrow
from features.source.row_types import EVENT, KIND
from features.source.zones import day_begin, day_begin_ms, day_number, day_of
from tests.features.raw_world import raw_tables, recipe, timeline_over, write_raw

ZONES = ["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"]
EPOCH = datetime(1970, 1, 1).date()  # noqa: DTZ001 - a day, wherever


@pytest.mark.parametrize("zone", ZONES)
def test_days_are_those_of_the_standard_library(zone: str) -> None:
    moments = [datetime(2016, 1, 1, tzinfo=UTC) + timedelta(hours=7 * step, minutes=step % 60) for step in range(4000)]
    local = [moment.astimezone(ZoneInfo(zone)) for moment in moments]
    days = [(moment.date() - EPOCH).days for moment in local]
    ms = [int(moment.timestamp() * 1000) for moment in moments]
    table = ibis.memtable(pa.table({"ms": ms}))
    found = ibis.duckdb.connect().to_pyarrow(
        table.select("ms", day=day_of(table["ms"], zone)).mutate(begin=lambda t: day_begin(t["day"], zone))
    )
    assert found["day"].to_pylist() == days == [day_number(each, zone) for each in ms]
    begins = found["begin"].to_pylist()
    assert begins == [day_begin_ms(day, zone) for day in days]
    for begin, day in set(zip(begins, days, strict=True)):
        assert (day_number(begin, zone), day_number(begin - 1, zone)) == (day, day - 1)


def test_daily_sums_end_at_midnight_across_the_change_to_summer_time(tmp_path: Path) -> None:
    tables = raw_tables()
    later = [at + timedelta(days=27) for at in tables["events"]["at"].to_pylist()]
    at = tables["events"].column_names.index("at")
    write_raw(
        tmp_path,
        {**tables, "events": tables["events"].set_column(at, "at", pa.array(later, pa.timestamp("ms", "UTC")))},
    )
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    config = recipe(
        tmp_path,
        events={**events, "time_zone": "Europe/Berlin"},
        aggregates=[{"by": ["user"], "as_of": "day", "windows": ["all", "2d"], "since": True}],
    )
    connection = connect("1GB", tmp_path)
    timeline = timeline_over(connection, config, tmp_path)
    rows: list[dict[str, Any]] = to_arrow(connection, timeline.table.filter(timeline.table[KIND] == EVENT)).to_pylist()
    (state,) = compute_windows(connection, timeline, config)
    sums = {(row["user"], row["__day"]): row for row in to_arrow(connection, state.table).to_pylist()}
    for row in rows:
        berlin = datetime.fromtimestamp(row[TIME] / 1000, ZoneInfo("Europe/Berlin"))
        midnight = berlin.replace(hour=0, minute=0, second=0, microsecond=0)
        two_before = (midnight.replace(tzinfo=None) - timedelta(days=2)).replace(tzinfo=midnight.tzinfo)
        mine = [other[TIME] for other in rows if other["user"] == row["user"]]
        before = [ms for ms in mine if ms < midnight.timestamp() * 1000]
        found = sums[row["user"], row["__day"]]
        assert found["user__count/n"] == len(before)
        assert found["user__count_2d/n"] == sum(ms >= two_before.timestamp() * 1000 for ms in before)
        if before:
            assert found["user__since"] == midnight.timestamp() - max(before) / 1000
