"""Columns as other teams' tools leave them: lists in one text, old timestamps, microseconds, negative weights."""

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.schema import DenseSpec, Schema
from features.build import build
from features.feature_config import FeaturesConfig
from tests.features.raw_world import quiet

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def log(rows: int = 400) -> pa.Table:
    dice = random.Random(5)  # noqa: S311 nothing here is secret
    return pa.table(
        {
            "user": [dice.randrange(20) for _ in range(rows)],
            "item": [dice.randrange(15) for _ in range(rows)],
            "at": [START + dt.timedelta(minutes=9 * n) for n in range(rows)],
            "page": [dice.choice(["home", "search"]) for _ in range(rows)],
            "click": [dice.random() < 0.4 for _ in range(rows)],
        }
    )


def built(folder: Path, table: pa.Table, events: dict[str, Any] | None = None, **data: Any) -> EncodedDataset:
    """The training rows of a log."""
    if not (folder / "events.parquet").exists():
        pq.write_table(table, folder / "events.parquet")
    path = {"path": str(folder / "events.parquet"), "user": "user", "item": "item", "time": "at", **(events or {})}
    blocks: dict[str, Any] = {
        "features": [{"name": "user"}, {"name": "item"}],
        "tasks": [{"name": "click", "kind": "binary", "label": "click"}],
        "split": {"by": "time", "valid": "6h"},
        **data,
    }
    build(FeaturesConfig.model_validate({"events": path, **blocks}), folder / "features", quiet)
    return EncodedDataset.open(folder / "features" / "train")


def vocabulary(folder: Path, table: str) -> list[str]:
    rows = pq.read_table(folder / "features" / "vocabulary.parquet").to_pylist()
    return sorted(row["value"] for row in rows if row["table"] == table)


@pytest.mark.parametrize(("separator", "text"), [("|", "drama|war|"), (", ", "drama, war, "), (".", "drama.war.")])
def test_a_text_of_several_values_is_a_list(tmp_path: Path, separator: str, text: str) -> None:
    table = log()
    genres = pc.binary_join_element_wise(pa.scalar(text), table["page"], "")
    features = [{"name": "user"}, {"name": "genres", "kind": "id_list", "separator": separator}]
    built(tmp_path, table.append_column("genres", genres), features=features)
    assert vocabulary(tmp_path, "genres") == ["drama", "home", "search", "war"]


def test_a_history_of_lists_says_how_to_take_one_value(tmp_path: Path) -> None:
    table = log().append_column("genres", pa.array([["drama", "war"]] * 400))
    histories = [{"name": "seen", "of": "genres", "by": "user", "last": 3}]
    with pytest.raises(DataError, match=r"first\(genres\)"):
        built(tmp_path, table, histories=histories)


def test_times_in_sparks_old_format_are_moments_where_their_zone_is_said(tmp_path: Path) -> None:
    table = log()
    plain = table.set_column(2, "at", table["at"].cast(pa.timestamp("us")).cast(pa.timestamp("ns")))
    pq.write_table(plain, tmp_path / "events.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(DataError, match="zone: UTC"):
        built(tmp_path, plain)
    train = built(tmp_path, plain, {"times": {"at": {"zone": "Europe/Berlin"}}})
    first = min(train.read(["__time"])["__time"].to_pylist())
    assert first == (START - dt.timedelta(hours=1)).timestamp() * 1000


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_a_time_finer_than_milliseconds_is_a_dense_feature(tmp_path: Path, unit: str) -> None:
    table = log()
    joined = pc.subtract(table["at"], pa.scalar(dt.timedelta(days=3, microseconds=7))).cast(pa.timestamp(unit, "UTC"))
    features = [{"name": "user"}, {"name": "joined", "kind": "dense", "bins": 4}]
    built(tmp_path, table.append_column("joined", joined), features=features)
    schema = Schema.load(tmp_path / "features")
    (spec,) = (feature for feature in schema.features if isinstance(feature, DenseSpec))
    assert spec.edges[0] == pytest.approx((START - dt.timedelta(days=3)).timestamp() * 1000, abs=1)


def test_a_negative_weight_is_refused_by_its_task(tmp_path: Path) -> None:
    tasks = [{"name": "click", "kind": "binary", "label": "click", "weight": "item - 7"}]
    with pytest.raises(DataError, match=r"task 'click' has a negative weight, such as -\d"):
        built(tmp_path, log(), tasks=tasks)


def test_a_log_whose_features_say_nothing_of_items_builds(tmp_path: Path) -> None:
    assert built(tmp_path, log(), features=[{"name": "user"}, {"name": "page"}]).rows > 300


def test_weights_that_are_all_zero_are_refused_by_their_task(tmp_path: Path) -> None:
    tasks = [{"name": "click", "kind": "binary", "label": "click", "weight": "item * 0"}]
    with pytest.raises(DataError, match=r"task 'click': its weight 'item \* 0' is 0 in all \d+ training rows"):
        built(tmp_path, log(), tasks=tasks)


def test_a_history_of_conditions_holds_them_as_ids(tmp_path: Path) -> None:
    histories = [{"name": "clicks", "of": "click", "by": "user", "last": 5}]
    built(tmp_path, log(), histories=histories)
    assert vocabulary(tmp_path, "clicks") == ["0", "1"]


def test_whole_numbers_beyond_what_floats_tell_apart_are_the_nearest(tmp_path: Path) -> None:
    table = log()
    huge = pa.array([2**64 - 1 if n % 9 == 0 else n for n in range(len(table))], pa.uint64())
    table = table.append_column("huge", huge).append_column(
        "pair", pa.array([[2**60 + 1, n] for n in range(len(table))])
    )
    features = [
        {"name": "item"},
        {"name": "huge", "kind": "dense", "encoding": "standardise"},
        {"name": "pair", "kind": "vector", "width": 2},
    ]
    assert built(tmp_path, table, features=features).rows > 300


def test_bytes_of_one_length_that_no_feature_uses_are_ignored(tmp_path: Path) -> None:
    table = log().append_column("digest", pa.array([bytes(16)] * 400, pa.binary(16)))
    assert built(tmp_path, table).rows > 300


def test_nan_in_a_file_is_null_whatever_its_statistics_say(tmp_path: Path) -> None:
    table = log()
    number = [float("nan") if n % 3 == 0 else float(n % 5) for n in range(len(table))]
    table = table.set_column(0, "user", pa.array(number)).append_column("score", pa.array(number))
    columns = {"known": "coalesce(score, 7)", "missing": "is_null(score)", "whole": "int(score)"}
    features = [{"name": "user"}, {"name": "known"}, {"name": "missing"}, {"name": "whole"}]
    built(tmp_path, table, {"columns": columns}, features=features)
    whole = ["0", "1", "2", "3", "4"]
    assert vocabulary(tmp_path, "user") == vocabulary(tmp_path, "whole") == whole
    assert vocabulary(tmp_path, "known") == [*whole, "7"]
    assert vocabulary(tmp_path, "missing") == ["0", "1"]
