"""A build on top of built days makes the same bytes as one of the whole log."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features.build import FeatureBuild, build
from tests.features.raw_world import DAYS, quiet, raw_tables, recipe, write_raw

FILES = ("train.parquet", "valid.parquet", "test.parquet", "vocabulary.parquet", "schema.json")
TILES = {"of": ["like", "seconds"], "since": True, "windows": ["all", "1d"]}
EVERYTHING: dict[str, Any] = {
    "aggregates": [
        {"by": ["user"], **TILES},
        {"by": ["user", "maker"], **TILES, "as_of": "hour"},
        {"by": ["item", "surface"], **TILES, "as_of": "day"},
        {"by": ["item"], "of": ["liked"], "windows": ["3h"]},
        {"by": ["item"], "of": ["liked"], "windows": ["6h"], "as_of": "hour"},
    ],
    "histories": [
        {"name": "last", "of": "item", "by": "user", "last": 3, "where": "liked == 1"},
        {"name": "makers", "of": "maker", "by": "user", "last": 4, "gap": "7h", "columns": {"made_for": "item"}},
    ],
    "crosses": [{"name": "cross", "of": ["surface", "maker"], "buckets": 50}],
    "split": {"by": "time", "valid": "1d", "embargo": "2h"},
}


def days(tables: dict[str, pa.Table], count: int) -> dict[str, pa.Table]:
    return {**tables, "events": tables["events"].filter(pc.less(tables["events"]["day"], count))}


def world(directory: Path, tables: dict[str, pa.Table], **changes: Any) -> FeatureBuild:
    """Build the tables in a directory, with a partition a day."""
    directory.mkdir(exist_ok=True)
    write_raw(directory, tables)
    path = str(directory / "events.parquet")
    events = {"path": path, "user": "user", "item": "item", "time": "at", "partition_rows": 1}
    blocks = {**EVERYTHING, "events": {**events, **changes.pop("events", {})}, **changes}
    return build(recipe(directory, **blocks), directory / "features", quiet)


def made(directory: Path) -> dict[str, bytes]:
    """What a build wrote, by file."""
    features = directory / "features"
    online = {str(p.relative_to(features)): p.read_bytes() for p in sorted((features / "online").rglob("*.*"))}
    return {**online, **{name: (features / name).read_bytes() for name in FILES}}


SPLITS = [
    {"by": "time", "valid": "1d", "embargo": "2h"},
    {"by": "user_time", "valid": 1, "test": 1},
    {"by": "random", "valid": 0.2},
    {"by": "expression", "valid": "day == 3"},
]


@pytest.mark.parametrize("split", SPLITS[:2], ids=lambda split: str(split["by"]))
def test_a_day_on_top_of_built_days_is_the_whole_log_byte_for_byte(tmp_path: Path, split: dict[str, Any]) -> None:
    tables = raw_tables()
    for count in (DAYS - 2, DAYS - 1):
        world(tmp_path / "grown", days(tables, count), split=split)
    grown = world(tmp_path / "grown", tables, split=split)
    whole = world(tmp_path / "whole", tables, split=split)
    assert (grown.days_reused, grown.days_built) == (DAYS - 1, 1)
    assert (whole.days_reused, whole.days_built) == (0, DAYS)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")
