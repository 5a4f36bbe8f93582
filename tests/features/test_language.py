"""What a recipe can say, compared with loops over the raw events."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from contract.columns import TIME
from contract.errors import ConfigError, DataError, RequestError
from contract.schema import Schema
from features.build import build
from features.encode.fit_encoders import Previous
from features.online.request_encoder import RankRequest, RequestEncoder
from features.source.data_files import find_files
from features.source.query_engine import connect
from features.source.row_types import EVENT, KIND, ROW, SAMPLED
from tests.features.raw_world import quiet, raw_tables, recipe, timeline_over, window_rows, write_raw

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
Rows = list[dict[str, Any]]
AGES = [{"by": ["user"], "of": ["liked"]}]


def timeline_of(directory: Path, **changes: Any) -> tuple[Rows, list[Rows]]:
    """The timeline's events and sampled negatives, and every state's rows."""
    write_raw(directory, raw_tables())
    config = recipe(directory, **changes)
    connection = connect("1GB", directory)
    timeline = timeline_over(connection, config, directory)
    rows = timeline.table.filter(timeline.table[KIND].isin([EVENT, SAMPLED]))
    return connection.to_pyarrow(rows).to_pylist(), window_rows(connection, timeline, config)


def events_block(directory: Path, **changes: Any) -> dict[str, Any]:
    return {"path": str(directory / "events.parquet"), "user": "user", "item": "item", "time": "at", **changes}


@pytest.mark.parametrize(("as_of", "size"), [("event", 1), ("hour", HOUR_MS), ("day", DAY_MS)])
def test_windows_and_the_time_since_the_last_event(tmp_path: Path, as_of: str, size: int) -> None:
    windows = ["1d", "7d"] if as_of == "day" else ["1h", "1d", "7d"]
    aggregate = {"by": ["user"], "of": ["liked"], "as_of": as_of, "since": True, "windows": windows}
    events, (rows,) = timeline_of(tmp_path, aggregates=[aggregate])
    tile = f"__{as_of}"
    found = {(row["user"], row[tile]) if size > 1 else row[ROW]: row for row in rows}
    for event in events:
        begin = event[TIME] // size * size
        row = found[(event["user"], event[tile]) if size > 1 else event[ROW]]
        before = [e for e in events if e["user"] == event["user"] and e[TIME] < begin]
        last = max((e[TIME] for e in before), default=None)
        assert row["user__since"] == (None if last is None else (begin - last) / 1000)
        for window, length in (("1h", HOUR_MS), ("1d", DAY_MS), ("7d", 7 * DAY_MS)):
            if window in windows:
                inside = [e for e in before if e[TIME] >= begin - length]
                assert row[f"user__count_{window}/n"] == len(inside)
                assert row[f"user__liked_mean_{window}/sum"] == sum(e["liked"] for e in inside)


def test_a_window_that_is_no_whole_number_of_tiles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="whole days"):
        recipe(tmp_path, aggregates=[{"by": ["user"], "windows": ["36h"], "as_of": "day"}])


def test_sums_and_plain_means_stand_beside_smoothed_ones(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    stats = {"by": ["user"], "of": ["seconds"], "stats": ["smoothed", "mean", "sum"], "count": False}
    build(recipe(tmp_path, aggregates=[stats]), tmp_path / "features", quiet)
    names = [spec.name for spec in Schema.load(tmp_path / "features").features]
    assert names[-3:] == ["user__seconds_mean", "user__seconds_plain_mean", "user__seconds_sum"]


def test_a_delayed_label_counts_only_when_it_is_final(tmp_path: Path) -> None:
    tasks = [{"name": "like", "kind": "binary", "label": "liked == 1", "within": "6h"}]
    events, (exact, daily) = timeline_of(
        tmp_path,
        tasks=tasks,
        aggregates=[{"by": ["user"], "of": ["like"]}, {"by": ["user"], "of": ["like"], "as_of": "day"}],
    )
    by_row, by_day = {r[ROW]: r for r in exact}, {(r["user"], r["__day"]): r for r in daily}
    end = max(e[TIME] for e in events)
    for event in events:
        mine = [e for e in events if e["user"] == event["user"] and e["label__like"] is not None]
        final = [e for e in mine if e[TIME] + 6 * HOUR_MS < event[TIME]]
        assert by_row[event[ROW]]["user__like_mean/n"] == len(final)
        midnight = event["__day"] * DAY_MS
        assert by_day[event["user"], event["__day"]]["user__like_mean/n"] <= sum(
            e[TIME] + 6 * HOUR_MS <= midnight for e in mine
        )
        assert (event["weight__like"] == 0) == (event[TIME] + 6 * HOUR_MS > end)


def test_a_label_can_be_what_later_events_say(tmp_path: Path) -> None:
    tasks = [
        {"name": "again", "kind": "binary", "label": "liked == 1", "by": ["user"], "within": "12h"},
        {"name": "times", "kind": "regression", "label": "liked == 1", "by": ["user"], "within": "12h"},
    ]
    events, _ = timeline_of(tmp_path, tasks=tasks, aggregates=[])
    end = max(e[TIME] for e in events)
    for event in events:
        later = [
            e for e in events
            if e["user"] == event["user"] and event[TIME] < e[TIME] <= event[TIME] + 12 * HOUR_MS and e["liked"] == 1
        ]  # fmt: skip
        final = event[TIME] + 12 * HOUR_MS <= end
        assert event["label__again"] == (float(bool(later)) if final else None)
        assert event["label__times"] == (float(len(later)) if final else None)


def test_histories_keep_a_gap_and_carry_side_columns_place_by_place(tmp_path: Path) -> None:
    history = {"name": "last", "of": "item", "by": "user", "last": 3, "gap": "2h", "columns": {"last_from": "surface"}}
    events, (rows,) = timeline_of(tmp_path, aggregates=[], histories=[history])
    found = {row[ROW]: row for row in rows}
    for event in events:
        before = [e for e in events if e["user"] == event["user"] and e[TIME] <= event[TIME] - 2 * HOUR_MS]
        before = sorted(before, key=lambda e: (e[TIME], e[ROW]))[-3:]
        row = found.get(event[ROW], {"last": [], "last_from": []})
        assert row["last"] == [e["item"] for e in before]
        assert row["last_from"] == [e["surface"] for e in before]


def test_side_columns_share_the_ids_of_their_feature(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    history = {"name": "last", "of": "item", "by": "user", "shares": "item", "columns": {"last_from": "surface"}}
    build(recipe(tmp_path, histories=[history], aggregates=[]), tmp_path / "features", quiet)
    tables = {s.name: s.table_name for s in Schema.load(tmp_path / "features").features if s.kind != "dense"}
    assert (tables["last"], tables["last_from"]) == ("item", "surface")


def test_crosses_of_any_owners_are_the_same_in_a_request(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    crosses = [
        {"name": "surface_x_maker", "of": ["surface", "maker"], "buckets": 97},
        {"name": "user_x_surface", "of": ["user", "surface"]},
    ]
    build(recipe(tmp_path, crosses=crosses, aggregates=[]), tmp_path / "features", quiet)
    encoder = RequestEncoder.open(tmp_path / "features")
    raw = raw_tables()
    makers = dict(zip(raw["items"]["item"].to_pylist(), raw["items"]["maker"].to_pylist(), strict=True))
    where = [s.name for s in encoder.schema.candidate.ids].index("surface_x_maker")
    seen: dict[tuple[Any, Any], set[int]] = {}
    for event in raw["events"].to_pylist()[:60]:
        request = RankRequest(event["user"], [event["item"]], {"surface": event["surface"]})
        row = int(encoder.encode(request).inputs.candidate.ids[0, where])
        seen.setdefault((event["surface"], makers[event["item"]]), set()).add(row)
    assert all(len(rows) == 1 for rows in seen.values())
    assert all((0 in rows) == (None in pair) for pair, rows in seen.items())
    stored = {int(v) for v in pq.read_table(tmp_path / "features" / "train")["surface_x_maker"].to_pylist()}
    assert {row for rows in seen.values() for row in rows} <= stored | {0}


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_negatives_are_items_that_the_user_never_took_and_nothing_counts_them(tmp_path: Path, by: str) -> None:
    changes = {"negatives": {"per_event": 2, "by": by}, "aggregates": [{"by": ["item"]}]}
    events, (rows,) = timeline_of(tmp_path, **changes)
    real, sampled = [[e for e in events if e["observed"] == seen] for seen in (1, 0)]
    taken = {(e["user"], e["item"]) for e in real}
    assert 200 < len(sampled) < 1000
    assert not any((e["user"], e["item"]) in taken for e in sampled)
    assert {e["label__like"] for e in sampled} == {0.0}
    assert {e["label__watch"] for e in sampled} == {None}
    found = {row[ROW]: row for row in rows}
    for event in sampled[:100]:
        before = [e for e in real if e["item"] == event["item"] and e[TIME] < event[TIME]]
        assert found[event[ROW]]["item__count/n"] == len(before)
    again, _ = timeline_of(tmp_path, **changes)
    assert sorted((e["user"], e["item"], e[TIME]) for e in again) == sorted(
        (e["user"], e["item"], e[TIME]) for e in events
    )


def test_a_log_of_positives_trains_with_negatives(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    blocks = {
        "negatives": {"per_event": 3},
        "tasks": [{"name": "taken", "kind": "binary", "label": "observed == 1"}],
        "aggregates": [{"by": ["item"], "of": ["taken"]}],
        "split": {"by": "user_time", "valid": 1, "test": 1},
    }
    made = build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)
    labels = pq.read_table(tmp_path / "features" / "valid")["label__taken"].to_pylist()
    assert set(labels) == {0.0, 1.0}
    assert sum(made.rows.values()) > 1000


def rows_by_split(directory: Path, **changes: Any) -> dict[str, list[int]]:
    write_raw(directory, raw_tables())
    build(recipe(directory, aggregates=[], **changes), directory / "features", quiet)
    return {
        split: pq.read_table(directory / "features" / split)["__time"].to_pylist()
        for split in ("train", "valid", "test")
    }


def test_a_split_by_time_leaves_an_embargo(tmp_path: Path) -> None:
    times = rows_by_split(tmp_path, split={"by": "time", "valid": "1d", "test": "1d", "embargo": "6h"})
    assert max(times["train"]) <= min(times["valid"]) - 6 * HOUR_MS
    assert max(times["valid"]) <= min(times["test"]) - 6 * HOUR_MS
    assert 0 < sum(map(len, times.values())) < 500


def test_leaving_the_last_rows_of_each_user_out(tmp_path: Path) -> None:
    times = rows_by_split(tmp_path, split={"by": "user_time", "valid": 1, "test": 1})
    assert len(times["test"]) == len(times["valid"]) == 25
    with pytest.raises(ValidationError, match="both be shares"):
        recipe(tmp_path, split={"by": "user_time", "valid": 1, "test": 0.2})


def test_policies_for_nulls_and_unknown_values(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    features = [
        {"name": "user", "unknown_rows": 5},
        {"name": "surface", "nulls": "own"},
        {"name": "age", "kind": "dense", "encoding": "standardise", "fill": 30.0},
        {"name": "maker", "nulls": "own", "unknown_rows": 2, "min_count": 60},
    ]
    build(recipe(tmp_path, features=features, aggregates=[]), tmp_path / "features", quiet)
    encoder = RequestEncoder.open(tmp_path / "features")
    assert 1 in pq.read_table(tmp_path / "features" / "train")["surface"].to_pylist()
    assert set(pq.read_table(tmp_path / "features" / "train")["maker"].to_pylist()) >= {1, 2, 3}
    known = encoder.encode(RankRequest("u1", [1], {"surface": None})).inputs.request
    strangers = {int(encoder.encode(RankRequest(f"x{i}", [1])).inputs.request.ids[0, 0]) for i in range(40)}
    assert known.ids[0].tolist()[1] == 1
    assert known.ids[0, 0] > 5
    assert strangers <= {1, 2, 3, 4, 5}
    assert len(strangers) > 2


def test_nulls_and_nan_are_refused_where_the_recipe_says_so(tmp_path: Path) -> None:
    tables = raw_tables()
    write_raw(tmp_path, tables)
    with pytest.raises(DataError, match="'age' is null in"):
        build(
            recipe(tmp_path, features=[{"name": "age", "kind": "dense", "nulls": "refuse"}], aggregates=[]),
            tmp_path / "f",
            quiet,
        )
    nan = pa.array([float("nan"), *([1.0] * 499)])
    write_raw(tmp_path, {**tables, "events": tables["events"].append_column("x", nan)})
    refusing = recipe(tmp_path, features=[{"name": "x", "kind": "dense", "nans": "refuse"}], aggregates=[])
    with pytest.raises(DataError, match="'x' is NaN in 1"):
        build(refusing, tmp_path / "f", quiet)
    with pytest.raises(ValidationError, match="does not take fill"):
        recipe(tmp_path, features=[{"name": "surface", "fill": 3}])


def test_a_request_without_a_value_that_may_not_be_null_is_refused(tmp_path: Path) -> None:
    tables = raw_tables()
    write_raw(tmp_path, {**tables, "events": tables["events"].filter(pc.is_valid(tables["events"]["surface"]))})
    blocks = {"features": [{"name": "user"}, {"name": "surface", "nulls": "refuse"}], "aggregates": []}
    build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)
    with pytest.raises(RequestError, match="refuses nulls"):
        RequestEncoder.open(tmp_path / "features").encode(RankRequest("u1", [1]))


def test_attributes_are_null_before_they_were_known(tmp_path: Path) -> None:
    tables = raw_tables()
    middle = tables["events"]["at"][250]
    users = tables["users"].append_column("changed", pa.array([middle] * 27, pa.timestamp("ms", "UTC")))
    write_raw(tmp_path, {**tables, "users": users})
    config = recipe(tmp_path, users={"path": str(tmp_path / "users.parquet"), "key": "user", "known_at": "changed"})
    connection = connect("1GB", tmp_path)
    table = timeline_over(connection, config, tmp_path).table
    events = connection.to_pyarrow(table.filter(table[KIND] == EVENT)).to_pylist()
    bound = middle.as_py().timestamp() * 1000
    assert all(e["age"] is None for e in events if e[TIME] < bound)
    assert any(e["age"] is not None for e in events if e[TIME] >= bound)


def test_vocabularies_grow_without_renumbering(tmp_path: Path) -> None:
    tables = raw_tables()
    write_raw(tmp_path, {**tables, "events": tables["events"].slice(0, 450)})
    split = {"by": "user_time", "valid": 0.1}
    build(recipe(tmp_path, split=split, aggregates=AGES), tmp_path / "features", quiet)
    before = Previous.load(tmp_path / "features")
    new = pa.array([f"n{i % 3}" if i % 4 == 0 else u for i, u in enumerate(tables["events"]["user"].to_pylist())])
    write_raw(tmp_path, {**tables, "events": tables["events"].set_column(0, "user", new)})
    build(recipe(tmp_path, split=split, aggregates=AGES, grow=True), tmp_path / "features", quiet)
    after = Previous.load(tmp_path / "features")
    assert before is not None
    assert after is not None
    old, grown = before.vocabularies.values("user"), after.vocabularies.values("user")
    assert grown[: len(old)] == old
    assert {"n0", "n1", "n2"} <= set(grown[len(old) :].to_pylist())
    assert after.priors == before.priors
    kept = {s.name: s.edges for s in before.schema.features if s.kind == "dense"}
    assert kept == {s.name: s.edges for s in after.schema.features if s.kind == "dense"}


def test_sources_may_lie_on_any_fsspec_filesystem(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    tables = raw_tables()
    for part in range(2):
        with memory.open(f"/log/day={part}/part.parquet", "wb") as file:
            pq.write_table(tables["events"].drop(["day"]).slice(part * 250, 250), file)
    write_raw(tmp_path, tables)
    events = events_block(tmp_path, path="memory://log")
    made = build(
        recipe(tmp_path, events=events, aggregates=[], split={"by": "expression", "valid": "day == 1"}),
        tmp_path / "features",
        quiet,
    )
    assert made.rows["train"] == made.rows["valid"] == 250
    assert find_files("memory://log/day=1/*.parquet", "here") == ["memory:///log/day=1/part.parquet"]
    with pytest.raises(DataError, match="no Parquet file"):
        find_files("memory://nowhere", "here")
    with pytest.raises(ConfigError, match="nosuch"):
        find_files("nosuch://x/*.parquet", "here")
    memory.rm("/log", recursive=True)


def test_a_zone_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    with pytest.raises(ConfigError, match="is not a time zone"):
        build(recipe(tmp_path, events=events_block(tmp_path, time_zone="Europe/Bärlin")), tmp_path / "f", quiet)


def test_a_build_repeats_itself_with_everything_switched_on(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    blocks: dict[str, Any] = {
        "negatives": {"per_event": 1},
        "crosses": [{"name": "c", "of": ["surface", "maker"]}],
        "aggregates": AGES,
        "split": {"by": "time", "valid": "1d", "embargo": "1h"},
    }
    for name in ("one", "two"):
        build(recipe(tmp_path, **blocks), tmp_path / name, quiet)
    for split in ("train", "valid"):
        first, second = (pq.read_table(tmp_path / name / split) for name in ("one", "two"))
        assert np.array_equal(first["__user"], second["__user"])
        assert first.equals(second)
