"""What an engine cannot compute is told with its place in the recipe, from a build as from `moerank check`."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.build import build
from features.feature_config import FeaturesConfig
from features.incremental.failed_place import explain
from features.source.query_engine import connect
from pipeline.project.check_recipe import check_recipe
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

LOG = {"user": "user", "item": "item", "time": "at"}


def world(folder: Path) -> str:
    """The raw world, whose column `code` is a number in all rows but one; the log's path."""
    tables = raw_tables()
    events = tables["events"]
    codes = [str(n) for n in range(len(events) - 1)]
    write_raw(folder, {**tables, "events": events.append_column("code", pa.array([*codes, "none"]))})
    return str(folder / "events.parquet")


def plain(folder: Path, **changes: Any) -> FeaturesConfig:
    blocks: dict[str, Any] = {"users": None, "items": None, "aggregates": [], "histories": [], "crosses": []}
    blocks |= {"features": [{"name": "user"}, {"name": "n", "kind": "dense"}], **changes}
    return recipe(folder, **blocks)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        (
            "SELECT *, code::INT AS n FROM 'LOG'",
            r"data\.events\.sql: column 'n' cannot be computed: Conversion Error.*none",
        ),
        ("SELECT *, 1 AS n FROM 'LOG' WHERE code::INT >= 0", r"data\.events\.sql cannot be computed: Conversion Error"),
    ],
)
def test_a_query_that_fails_on_a_value_is_named_with_its_column(tmp_path: Path, query: str, place: str) -> None:
    log = world(tmp_path)
    config = plain(tmp_path, events={"sql": query.replace("LOG", log), **LOG})
    for look in (check_recipe, lambda config: build(config, tmp_path / "features", quiet)):
        with pytest.raises(DataError, match=place):
            look(config)


@pytest.mark.parametrize(
    ("blocks", "place"),
    [
        ({"columns": {"n": "int(code)"}}, r"data\.events\.columns\.n: 'int\(code\)' cannot be computed"),
        ({"columns": {"n": "day"}, "where": "int(code) > 3"}, r"data\.events\.where: 'int\(code\) > 3' cannot"),
        ({"columns": {"n": "day * 9000000000000000000"}}, r"data\.events\.columns\.n: .* cannot .*Out of Range"),
    ],
)
def test_an_expression_of_a_table_is_named(tmp_path: Path, blocks: dict[str, Any], place: str) -> None:
    config = plain(tmp_path, events={"path": world(tmp_path), **LOG, **blocks})
    with pytest.raises(DataError, match=place):
        build(config, tmp_path / "features", quiet)


@pytest.mark.parametrize(
    ("block", "place"),
    [
        (
            {"tasks": [{"name": "like", "kind": "binary", "label": "int(code) > 3"}]},
            r"data\.tasks\[0\] \(like\)\.label",
        ),
        (
            {"tasks": [{"name": "like", "kind": "binary", "label": "liked == 1", "weight": "int(code)"}]},
            r"data\.tasks\[0\] \(like\)\.weight",
        ),
        (
            {"histories": [{"name": "last", "by": "user", "of": "item", "last": 3, "where": "int(code) > 3"}]},
            r"data\.histories\[0\] \(last\)\.where",
        ),
        ({"split": {"by": "expression", "valid": "int(code) % 2 == 0"}}, r"data\.split\.valid"),
    ],
)
def test_an_expression_over_the_joined_log_is_named(tmp_path: Path, block: dict[str, Any], place: str) -> None:
    events = {"path": world(tmp_path), **LOG, "columns": {"n": "day"}}
    with pytest.raises(DataError, match=rf"{place}: '.*int\(code\).*' cannot be computed: Conversion Error"):
        build(plain(tmp_path, events=events, **block), tmp_path / "features", quiet)


def test_a_table_of_items_that_is_a_query_is_named(tmp_path: Path) -> None:
    world(tmp_path)
    query = "SELECT item, (maker || 'x')::INT AS n FROM 'ITEMS'".replace("ITEMS", f"{tmp_path}/items.parquet")
    with pytest.raises(DataError, match=r"data\.items\.sql: column 'n' cannot be computed"):
        build(plain(tmp_path, items={"sql": query, "key": "item"}), tmp_path / "features", quiet)


def test_a_decimal_without_statistics_is_named_by_its_column(tmp_path: Path) -> None:
    tables = raw_tables()
    write_raw(tmp_path, tables)
    wide = pa.array([2**64] * len(tables["events"]), pa.decimal128(38, 0))
    log = tables["events"].append_column("n", wide)
    pq.write_table(log, tmp_path / "events.parquet", write_statistics=False)
    with pytest.raises(DataError, match=r"events\.parquet: column 'n' cannot be computed: Conversion Error"):
        build(plain(tmp_path), tmp_path / "features", quiet)


def test_memory_is_named_only_where_it_was_too_little(tmp_path: Path) -> None:
    write_raw(tmp_path, raw_tables())
    connection, config = connect("1GB", tmp_path), recipe(tmp_path)
    assert "data.memory_limit (3GB)" in explain(connection, config, duckdb.OutOfMemoryException("no room"))
    assert explain(connection, config, duckdb.IOException("a disk")) == "the sources cannot be used: a disk"
