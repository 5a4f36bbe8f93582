"""Ids that a type has already merged, and times in the wrong unit, are refused: nothing tells them later."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedDataset
from contract.errors import ConfigError, DataError
from features.build import build
from features.feature_config import FeaturesConfig
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

FIRST_INEXACT = 2**53


def changed(directory: Path, column: str, values: pa.Array) -> None:
    """The raw world with another column in its log."""
    tables = raw_tables()
    events = tables["events"]
    place = events.column_names.index(column)
    write_raw(directory, {**tables, "events": events.set_column(place, column, values)})


def plain(directory: Path, **changes: Any) -> FeaturesConfig:
    """A recipe over the log alone."""
    blocks: dict[str, Any] = {"users": None, "items": None, "aggregates": [], "histories": [], "crosses": []}
    blocks |= {"features": [{"name": "user"}, {"name": "item"}, {"name": "day"}], **changes}
    return recipe(directory, **blocks)


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.decimal128(22, 2)], ids=["as pandas writes ids beside a null", "as a warehouse does"]
)
@pytest.mark.parametrize("column", ["item", "day"])
def test_ids_that_a_fraction_cannot_tell_apart_are_refused(tmp_path: Path, kind: pa.DataType, column: str) -> None:
    ids = [FIRST_INEXACT + 1 + n % 4 for n in range(500)]
    exact = pa.array(map(Decimal, ids), pa.decimal128(22, 2))
    changed(tmp_path, column, exact if pa.types.is_decimal(kind) else pa.array(map(float, ids)))
    # The log is split by days, unless days are what is asked about.
    split = {"by": "random", "valid": 0.2, "test": 0.2}
    with pytest.raises(DataError, match=rf"'{column}' is .*cannot tell ids from 2\*\*53 on apart"):
        build(plain(tmp_path, split=split), tmp_path / "features", quiet)


@pytest.mark.parametrize(("unit", "each", "year"), [("s", 1, r"\d{5}"), ("ms", 1_000, "1970"), ("us", 1, "1970")])
def test_times_in_another_unit_are_refused_with_the_year_that_they_would_be(
    tmp_path: Path, unit: str, each: int, year: str
) -> None:
    ms = raw_tables()["events"]["at"].cast(pa.int64()).to_pylist()
    changed(tmp_path, "at", pa.array([value // each for value in ms]))
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    config = plain(tmp_path, events={**events, "times": {"at": {"unit": unit}}})
    with pytest.raises(DataError, match=f"in the year {year} by column 'at', read as {unit} since 1970"):
        build(config, tmp_path / "features", quiet)


def test_a_query_of_duckdb_is_a_log(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    text = "select *, day::decimal(10, 2) as price from 'PATH' where day >= 1 -- not the first"
    text = text.replace("PATH", str(tmp_path / "events.parquet"))
    events = {"sql": text, "user": "user", "item": "item", "time": "at"}
    config = plain(tmp_path, events=events, features=[{"name": "user"}, {"name": "price", "kind": "dense"}])
    rows = build(config, tmp_path / "features", quiet).rows
    days = pq.read_table(tmp_path / "events.parquet", columns=["day"])["day"].to_pylist()
    assert sum(rows.values()) == sum(day >= 1 for day in days)


@pytest.mark.parametrize("text", ["drop table x", "select 1; select 2", "select nothing from 'events.parquet'"])
def test_another_statement_than_one_select_is_refused(tmp_path: Path, text: str) -> None:
    write_raw(tmp_path, raw_tables())
    events = {"sql": text.replace("events.parquet", f"{tmp_path}/events.parquet"), "user": "user", "time": "at"}
    with pytest.raises(Exception, match=r"data\.events\.sql"):
        build(plain(tmp_path, events=events), tmp_path / "features", quiet)


def test_a_used_column_that_two_tables_spell_with_other_capitals_is_refused(tmp_path: Path) -> None:
    tables = raw_tables()
    items = tables["items"].rename_columns({"maker": "Surface"})
    write_raw(tmp_path, {**tables, "items": items})
    there = {"items": {"path": str(tmp_path / "items.parquet"), "key": "item"}}
    with pytest.raises(DataError, match=r"data\.items has the column 'Surface', and the log 'surface'"):
        build(plain(tmp_path, **there, features=[{"name": "Surface"}]), tmp_path / "features", quiet)
    # Beside it, the log's own may be used.
    build(plain(tmp_path, **there, features=[{"name": "surface"}]), tmp_path / "features", quiet)
    named = {**there["items"], "columns": {"item_surface": "Surface"}}
    features = [{"name": "surface"}, {"name": "item_surface"}]
    build(plain(tmp_path, items=named, features=features), tmp_path / "named", quiet)
    makers = pq.read_table(tmp_path / "items.parquet")["Surface"]
    learned = EncodedDataset.open(tmp_path / "named" / "train").read(["item_surface"])["item_surface"]
    assert len(set(learned.to_pylist())) == len(makers.unique())


def test_a_derived_column_that_differs_only_in_capitals_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    events = {"path": str(tmp_path / "events.parquet"), "user": "user", "item": "item", "time": "at"}
    config = plain(tmp_path, events={**events, "columns": {"Surface": "upper(surface)"}})
    with pytest.raises(ConfigError, match="differs only in capitals from 'surface'"):
        build(config, tmp_path / "features", quiet)
