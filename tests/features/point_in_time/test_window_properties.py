"""Whatever the log, a row's sums are those of a loop over strictly earlier events."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.columns import TIME
from features.source.query_engine import connect
from features.source.row_types import EVENT, KIND, ROW
from tests.features.raw_world import START, raw_tables, recipe, timeline_over, window_rows, write_raw

HOUR_MS = 3_600_000
# Few users and moments, so that ties and empty windows are common.
EVENTS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.booleans()), min_size=1, max_size=25)


@settings(max_examples=12)
@given(events=EVENTS, hours=st.sampled_from([1, 5, 24]))
def test_sums_are_those_of_a_loop(events: list[tuple[int, int, bool]], hours: int) -> None:
    events = sorted(events, key=lambda event: event[1])
    users, moments, liked = zip(*events, strict=True)
    log = {
        "user": [f"u{user}" for user in users],
        "item": pa.array([0] * len(events), pa.int32()),
        "at": pa.array([START + timedelta(hours=moment) for moment in moments], pa.timestamp("ms", "UTC")),
        "surface": ["home"] * len(events),
        "day": [moment // 24 for moment in moments],
        "liked": [int(each) for each in liked],
        "seconds": [1.0] * len(events),
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_raw(folder, {**raw_tables(), "events": pa.table(log)})
        config = recipe(folder, aggregates=[{"by": ["user"], "of": ["liked"], "windows": ["all", f"{hours}h"]}])
        connection = connect("1GB", folder)
        timeline = timeline_over(connection, config, folder)
        rows = connection.to_pyarrow(timeline.table.filter(timeline.table[KIND] == EVENT)).to_pylist()
        found = {row[ROW]: row for row in window_rows(connection, timeline, config)[0]}
        connection.disconnect()
    for row in rows:
        before = [other for other in rows if other["user"] == row["user"] and other[TIME] < row[TIME]]
        recent = [other for other in before if other[TIME] >= row[TIME] - hours * HOUR_MS]
        assert found[row[ROW]]["user__count/n"] == len(before)
        assert found[row[ROW]][f"user__count_{hours}h/n"] == len(recent)
        assert found[row[ROW]][f"user__liked_mean_{hours}h/sum"] == sum(other["liked"] for other in recent)
