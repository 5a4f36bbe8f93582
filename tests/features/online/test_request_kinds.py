"""Kinds of features that a request must encode as training did: crosses over both sides, fractions, dates, times."""

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError, RequestError
from features.build import build
from features.feature_config import FeaturesConfig
from features.online.request_encoder import RankRequest, RequestEncoder
from tests.features.raw_world import quiet

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def log(folder: Path) -> None:
    dice = random.Random(5)  # noqa: S311 nothing here is secret
    rows: list[dict[str, Any]] = [
        {
            "user": dice.randrange(20),
            "item": (item := dice.randrange(15)),
            "time": (time := START + dt.timedelta(minutes=9 * minute)),
            "page": dice.choice(["home", "search"]),
            "click": dice.random() < 0.4,
            "band": (item % 10) / 10,
            "band_name": ["low", "high"][item % 2],
            "day": time.date(),
            "since": time - dt.timedelta(days=3),
        }
        for minute in range(600)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "events.parquet")
    users = pa.table({"user": list(range(20)), "country": [["DE", "FR"][u % 2] for u in range(20)]})
    pq.write_table(users, folder / "users.parquet")
    items = pa.table({"item": list(range(15)), "brand": [f"b{i % 4}" for i in range(15)]})
    pq.write_table(items, folder / "items.parquet")


def built(folder: Path, **data: Any) -> RequestEncoder:
    log(folder)
    config = FeaturesConfig.model_validate(
        {
            "events": {"path": str(folder / "events.parquet"), "user": "user", "item": "item", "time": "time"},
            "users": {"path": str(folder / "users.parquet"), "key": "user"},
            "items": {"path": str(folder / "items.parquet"), "key": "item"},
            "tasks": [{"name": "click", "kind": "binary", "label": "click"}],
            "split": {"by": "user_time", "valid": 0.15, "test": 0.15},
            **data,
        }
    )
    build(config, folder / "features", quiet)
    return RequestEncoder.open(folder / "features")


IDS = [{"name": "user"}, {"name": "item"}, {"name": "page"}]


@pytest.mark.parametrize("order", [["country", "brand"], ["brand", "country"], ["page", "brand", "country"]])
def test_a_cross_of_both_sides_is_the_same_for_one_and_for_many_candidates(tmp_path: Path, order: list[str]) -> None:
    encoder = built(tmp_path, features=IDS, crosses=[{"name": "cross", "of": order}])
    items, context = [0, 1, 2, 3, 14], {"page": "home"}
    alone = [encoder.encode(RankRequest(3, [item], context)).inputs.candidate.ids[0].tolist() for item in items]
    assert encoder.encode(RankRequest(3, items, context)).inputs.candidate.ids.tolist() == alone
    assert len({tuple(row) for row in alone}) > 1


@pytest.mark.parametrize(
    "data",
    [
        {"crosses": [{"name": "cross", "of": ["band", "page"]}]},
        {"aggregates": [{"by": ["user", "band"], "of": ["click"], "stats": ["mean"]}]},
    ],
)
def test_a_fraction_is_no_key(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"'band'.*fractions"):
        built(tmp_path, features=IDS, **data)


def test_dates_and_times_may_be_given_as_text(tmp_path: Path) -> None:
    since = {"name": "since", "kind": "dense"}
    encoder = built(tmp_path, features=[*IDS, {"name": "day"}, since], crosses=[{"name": "x", "of": ["day", "page"]}])

    def encoded(day: Any, moment: Any) -> list[Any]:
        inputs = encoder.encode(RankRequest(3, [1], {"page": "home", "day": day, "since": moment})).inputs
        return [inputs.request.ids.tolist(), inputs.request.dense.tolist(), inputs.candidate.ids.tolist()]

    milliseconds = int(dt.datetime(2026, 2, 27, 12, tzinfo=dt.UTC).timestamp() * 1000)
    assert encoded("2026-03-02", "2026-02-27T12:00:00Z") == encoded(20514, milliseconds)
    assert encoded("2026-03-02", "2026-02-27T13:00:00+01:00") == encoded(20514, milliseconds)
    assert encoded("2026-03-02", "2026-02-27") != encoded("2026-03-03", "2026-02-27")
    for field, (day, moment) in {"context.day": ("yesterday", 0), "context.since": ("2026-03-02", "noon")}.items():
        with pytest.raises(RequestError, match="such as 2026-03-01") as refused:
            encoded(day, moment)
        assert refused.value.field == field


def test_standardised_numbers_beyond_those_of_training_count_as_its_extremes(tmp_path: Path) -> None:
    encoder = built(tmp_path, features=[*IDS, {"name": "band", "kind": "dense", "encoding": "standardise"}])

    def dense(band: float) -> Any:
        encoded = encoder.encode(RankRequest(3, [1], {"page": "home", "band": band}))
        return encoded.inputs.request.dense.tolist(), dict(encoded.clipped)

    assert dense(1e300) == (dense(0.9)[0], {"band": 1})
    assert dense(-5.0) == (dense(0.0)[0], {"band": 1})
    assert dense(0.5)[1] == {}


def test_a_cross_of_columns_that_no_table_and_no_request_tells_is_null(tmp_path: Path) -> None:
    log(tmp_path)
    config = FeaturesConfig.model_validate(
        {
            "events": {"path": str(tmp_path / "events.parquet"), "item_columns": ["band_name"], "time": "time"},
            "features": [{"name": "page"}],
            "crosses": [{"name": "cross", "of": ["page", "band_name"]}],
            "tasks": [{"name": "click", "kind": "binary", "label": "click"}],
            "split": {"by": "random", "valid": 0.15, "test": 0.15},
        }
    )
    build(config, tmp_path / "features", quiet)
    encoder = RequestEncoder.open(tmp_path / "features")
    encoded = encoder.encode(RankRequest(None, [0, 0], {"page": "home"}, {}, {"band_name": ["low", None]}))
    assert encoded.inputs.candidate.ids[1, 0] == 0
    assert encoded.inputs.candidate.ids[0, 0] > 0
    assert encoder.encode(RankRequest(None, [0], {"page": "home"})).inputs.candidate.ids.tolist() == [[0]]
