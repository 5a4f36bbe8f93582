"""Wrong sources and recipes end in one clear error, and nothing half written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from contract.errors import ConfigError, DataError, MoerankError
from features.build import build
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

Tables = dict[str, pa.Table]


def drop(table: str, column: str) -> Callable[[Tables], Tables]:
    return lambda tables: {**tables, table: tables[table].drop([column])}


def replace(table: str, column: str, values: Callable[[pa.Table], Any]) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        place = tables[table].column_names.index(column)
        return {**tables, table: tables[table].set_column(place, column, values(tables[table]))}

    return change


one_class = replace("events", "liked", lambda events: pa.array([1] * len(events)))
nothing_watched = replace("events", "seconds", lambda events: pa.array([float("nan")] * len(events)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("events", "item"), "no column 'item'"),
        (drop("users", "user"), "no column 'user'"),
        (lambda t: {**t, "events": t["events"].slice(0, 0)}, "has no rows"),
        (lambda t: nothing_watched(one_class(t)), "1 in all .* training rows.*watch"),
        (replace("events", "at", lambda e: e["at"].cast(pa.timestamp("ms"))), "time zone"),
        (replace("users", "user", lambda u: pa.array(["u1"] * len(u))), "rows repeat a 'user'"),
        (replace("users", "age", lambda u: pa.array(["young"] * len(u))), "takes numbers"),
        (replace("users", "age", lambda u: pa.array([{"a": 1}] * len(u))), "struct"),
        (replace("users", "age", lambda u: pa.array([float("inf")] * len(u))), "infinite"),
        (replace("users", "user", lambda u: pa.array(range(len(u)))), "make them one type"),
        (replace("items", "tags", lambda i: pa.array([1] * len(i))), "takes lists"),
    ],
)
def test_wrong_sources_are_refused_by_name(tmp_path: Path, change: Callable[[Tables], Tables], words: str) -> None:
    write_raw(tmp_path, change(raw_tables()))
    with pytest.raises(DataError, match=words):
        build(recipe(tmp_path, aggregates=[]), tmp_path / "features", quiet)
    assert not (tmp_path / "features").exists()
    assert not list(tmp_path.glob(".features*"))


@pytest.mark.parametrize(("change", "unlearned"), [(one_class, "like"), (nothing_watched, "watch")])
def test_one_label_that_teaches_nothing_stops_no_build(
    tmp_path: Path, change: Callable[[Tables], Tables], unlearned: str
) -> None:
    write_raw(tmp_path, change(raw_tables()))
    assert list(build(recipe(tmp_path, aggregates=[]), tmp_path / "features", quiet).unlearned) == [unlearned]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ({"features": [{"name": "agee", "kind": "dense"}]}, "did you mean 'age'"),
        ({"tasks": [{"name": "like", "kind": "binary", "label": "likedd == 1"}]}, "did you mean 'liked'"),
        ({"aggregates": [{"by": ["usr"]}]}, "did you mean 'user'"),
        ({"aggregates": [{"by": ["user"], "of": ["surface"]}]}, "allowed are numbers"),
        ({"split": {"by": "expression", "valid": "day == 77"}}, "no valid rows"),
        ({"tasks": [{"name": "like", "kind": "binary", "label": "day"}]}, "make it a comparison"),
        (
            {"aggregates": [{"by": ["item"]}, {"by": ["item"], "of": ["seconds"], "stats": ["sum"], "as_of": "day"}]},
            "names used twice: item__count; aggregates",
        ),
    ],
)
def test_wrong_recipes_are_refused_by_name(tmp_path: Path, blocks: dict[str, Any], words: str) -> None:
    write_raw(tmp_path, raw_tables())
    with pytest.raises(MoerankError, match=words):
        build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)


def test_keys_that_do_not_exist_and_names_used_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="fetures"):
        recipe(tmp_path, fetures=[])
    with pytest.raises(ValidationError, match="names used twice: age"):
        recipe(tmp_path, features=[{"name": "age", "kind": "dense"}] * 2)


def test_a_feature_named_like_a_column_of_training_rows_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    for name in ("label__like", "__user"):
        config = recipe(tmp_path, events={**events, "columns": {name: "seconds"}}, features=[{"name": name}])
        with pytest.raises(ConfigError, match=f"cannot have the name '{name}'"):
            build(config, tmp_path / "features", quiet)


def test_a_log_that_begins_after_its_last_day_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    with pytest.raises(DataError, match="no rows up to 2000-01-01"):
        build(recipe(tmp_path, events={**events, "until": "2000-01-01"}), tmp_path / "features", quiet)


def test_repeated_rows_are_dropped_or_refused_as_asked(tmp_path: Path) -> None:
    tables = raw_tables()
    twice = pa.concat_tables([tables["events"], tables["events"].slice(0, 30)])
    write_raw(tmp_path, {**tables, "events": twice})
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    with pytest.raises(DataError, match="30 of 530 rows repeat"):
        build(recipe(tmp_path, events={**events, "duplicates": "refuse"}), tmp_path / "features", quiet)
    kept = build(recipe(tmp_path, events={**events, "duplicates": "first"}), tmp_path / "features", quiet)
    assert sum(kept.rows.values()) == 500


def test_a_failed_build_leaves_the_last_good_one(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    build(recipe(tmp_path, aggregates=[]), tmp_path / "features", quiet)
    before = (tmp_path / "features" / "schema.json").read_bytes()
    write_raw(tmp_path, replace("events", "liked", lambda e: pc.multiply(e["liked"], 0))(raw_tables()))
    with pytest.raises(DataError):
        build(recipe(tmp_path, aggregates=[]), tmp_path / "features", quiet)
    assert (tmp_path / "features" / "schema.json").read_bytes() == before


@pytest.mark.parametrize(
    "split", [{"by": "user_time", "valid": 0.2, "test": 0.1}, {"by": "random", "valid": 0.2, "test": 0.1}]
)
def test_splits_by_fraction_give_about_that_share(tmp_path: Path, split: dict[str, Any]) -> None:
    write_raw(tmp_path, raw_tables())
    rows = build(recipe(tmp_path, split=split, aggregates=[]), tmp_path / "features", quiet).rows
    assert 0.14 < rows["valid"] / 500 < 0.27
    assert 0.05 < rows["test"] / 500 < 0.16


def test_a_table_without_user_item_or_time_builds(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    config = recipe(
        tmp_path,
        events={"path": str(tmp_path / "events.parquet")},
        users=None,
        items=None,
        features=[{"name": "surface"}, {"name": "seconds", "kind": "dense"}],
        aggregates=[],
        tasks=[{"name": "like", "kind": "binary", "label": "liked == 1"}],
        split={"by": "random", "valid": 0.2},
    )
    assert build(config, tmp_path / "features", quiet).features == 2


def test_features_of_earlier_events_need_a_time(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    timeless = {"path": str(tmp_path / "events.parquet"), "user": "user"}
    config = recipe(tmp_path, events=timeless, users=None, items=None, features=[], aggregates=[{"by": ["user"]}])
    with pytest.raises(ConfigError, match=r"need data\.events\.time"):
        build(config, tmp_path / "features", quiet)
