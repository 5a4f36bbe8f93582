"""What encoders are fitted on: training rows alone, in any order, and what an earlier build learned where it grows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from contract.schema import DenseSpec, IdSpec, Schema
from features.encode.fit_encoders import Previous, smooth
from features.encode.vocabulary import Vocabularies
from features.point_in_time.aggregates import AggregateColumns
from features.quality.check_data import load_report
from tests.features.incremental.test_increment import FEW, world
from tests.features.raw_world import DAYS, raw_tables

SPLIT = {"by": "expression", "valid": f"day == {DAYS - 1}"}
COLUMNS: list[dict[str, Any]] = [{"name": "user", "min_count": 2}, {"name": "seconds", "kind": "dense"}]
FITTED: dict[str, Any] = {**FEW, "features": COLUMNS, "split": SPLIT, "checks": {"leakage": "off"}}


def fitted(directory: Path) -> Previous:
    found = Previous.load(directory / "features")
    assert found is not None
    return found


def dense(schema: Schema, name: str) -> DenseSpec:
    spec = next(spec for spec in schema.features if spec.name == name)
    assert isinstance(spec, DenseSpec)
    return spec


def training(tables: dict[str, pa.Table]) -> pa.Table:
    return tables["events"].filter(pc.less(tables["events"]["day"], DAYS - 1))


def test_numbers_and_vocabularies_are_of_training_rows_alone(tmp_path: Path) -> None:
    tables = raw_tables()
    world(tmp_path, tables, **FITTED)
    found = fitted(tmp_path)
    seconds = training(tables)["seconds"].drop_null().to_numpy()
    edges = dense(found.schema, "seconds").edges
    assert (edges[0], edges[-1]) == (seconds.min(), seconds.max())
    users = training(tables)["user"].value_counts().to_pylist()
    often = sorted((-user["counts"], user["values"]) for user in users if user["counts"] >= 2)
    assert found.vocabularies.values("user").to_pylist() == [name for _, name in often]


def test_a_task_has_the_mean_and_the_spread_of_its_training_labels(tmp_path: Path) -> None:
    tables = raw_tables()
    world(tmp_path, tables, **FITTED)
    like, watch = fitted(tmp_path).schema.tasks
    events = training(tables)
    liked = events["liked"].to_numpy()
    assert like.base_rate == pytest.approx(liked.mean())
    assert like.spread == pytest.approx(liked.std())
    watched = np.log1p(events.filter(pc.equal(events["liked"], 1))["seconds"].drop_null().to_numpy())
    assert watch.base_rate == pytest.approx(watched.mean())
    assert watch.spread == pytest.approx(watched.std())


def test_what_is_fitted_does_not_depend_on_how_the_log_is_cut(tmp_path: Path) -> None:
    for name, rows in (("days", 1), ("whole", 10**9)):
        world(tmp_path / name, raw_tables(), **FITTED, events={"partition_rows": rows})
    by_day, whole = fitted(tmp_path / "days"), fitted(tmp_path / "whole")
    assert by_day.schema == whole.schema
    assert by_day.priors == whole.priors


def test_growing_keeps_numbers_and_rows_and_only_adds_values(tmp_path: Path) -> None:
    tables = raw_tables()
    early = {**tables, "events": tables["events"].filter(pc.not_equal(tables["events"]["user"], "u3"))}
    world(tmp_path, early, **FITTED)
    before = fitted(tmp_path)
    world(tmp_path, tables, **FITTED, grow=True)
    after = fitted(tmp_path)
    assert dense(after.schema, "seconds") == dense(before.schema, "seconds")
    known = before.vocabularies.values("user").to_pylist()
    assert after.vocabularies.values("user").to_pylist() == [*known, "u3"]


def test_a_list_follows_the_table_that_it_shares(tmp_path: Path) -> None:
    items = [{"name": "item", "nulls": "own", "unknown_rows": 4}]
    history = [{"name": "last", "of": "item", "by": "user", "last": 3, "shares": "item"}]
    world(tmp_path, raw_tables(), **{**FITTED, "features": items, "histories": history})
    item, last = fitted(tmp_path).schema.features
    assert isinstance(item, IdSpec)
    assert isinstance(last, IdSpec)
    assert (last.table_name, last.rows, last.null_row, last.unknown_rows) == ("item", item.rows, True, 4)


def test_a_task_that_rows_teach_nothing_of_stays_and_is_told_while_another_can_be_learned(tmp_path: Path) -> None:
    tasks = [
        {"name": "like", "kind": "binary", "label": "liked"},
        {"name": "always", "kind": "binary", "label": "liked >= 0"},
        {"name": "never", "kind": "regression", "label": "seconds", "where": "liked == 7"},
        {"name": "weightless", "kind": "binary", "label": "liked", "weight": "liked * 0"},
    ]
    built = world(tmp_path, raw_tables(), **{**FITTED, "tasks": tasks})
    assert list(built.unlearned) == ["always", "never", "weightless"]
    assert [(task.name, task.base_rate) for task in fitted(tmp_path).schema.tasks][1:3] == [("always", 1), ("never", 0)]
    report = load_report(tmp_path / "features")
    assert report is not None
    assert report.unlearned == built.unlearned
    assert "never learns nothing: no training row has a label" in (tmp_path / "features/quality.html").read_text()


def test_a_build_that_grows_keeps_the_scale_of_a_task_without_labels(tmp_path: Path) -> None:
    like = {"name": "like", "kind": "binary", "label": "liked"}
    watch = {"name": "watch", "kind": "regression", "label": "seconds"}
    world(tmp_path, raw_tables(), **{**FITTED, "tasks": [like, watch]})
    before = fitted(tmp_path).schema.tasks
    world(tmp_path, raw_tables(), **{**FITTED, "tasks": [like, {**watch, "where": "liked == 7"}]}, grow=True)
    after = fitted(tmp_path).schema.tasks
    assert (after[1].base_rate, after[1].spread) == (before[1].base_rate, before[1].spread)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": [{"name": "t", "kind": "binary", "label": "seconds"}]}, "is binary, but its label 'seconds' takes"),
        ({"tasks": [{"name": "t", "kind": "binary", "label": "liked >= 0"}]}, "is 1 in all .* both 0 and 1 must occur"),
        (
            {"tasks": [{"name": "t", "kind": "regression", "label": "seconds", "where": "liked == 7"}]},
            "no training row has a label",
        ),
        (
            {"histories": [{"name": "last", "of": "item", "by": "user", "last": 3, "shares": "seconds"}]},
            "shares 'seconds', which is not an id feature",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        world(tmp_path, raw_tables(), **{**FITTED, **changes})


def test_nothing_is_taken_up_where_no_build_has_finished(tmp_path: Path) -> None:
    assert Previous.load(tmp_path) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1)), min_size=1), st.floats(0.01, 0.99))
def test_a_smoothed_mean_lies_between_the_mean_of_all_and_its_own(rows: list[tuple[int, float]], mean: float) -> None:
    seen = np.array([count for count, _ in rows], dtype=np.int64)
    own = np.array([rate for _, rate in rows])
    column = AggregateColumns("x", ("user",), "x/sum", "x/n", "like", 20.0, 24, "smoothed")
    found = smooth(own * seen, seen, column, {"like": mean})
    low, high = np.minimum(own, mean), np.maximum(own, mean)
    assert ((found >= low - 1e-12) & (found <= high + 1e-12)).all()
    assert np.allclose(found[seen == 0], mean)


def test_vocabularies_are_what_the_schema_says(tmp_path: Path) -> None:
    world(tmp_path, raw_tables(), **FITTED)
    schema = Schema.load(tmp_path / "features")
    loaded = Vocabularies.load(tmp_path / "features", schema.vocabulary_tables(), schema.vocabulary_sha256)
    assert loaded.size("user") == schema.tables()["user"]
