"""A build on top of built days makes the same bytes as one of the whole log."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from features.build import FeatureBuild, build
from tests.features.raw_world import DAYS, quiet, raw_tables, recipe, write_raw

FILES = ("vocabulary.parquet", "schema.json")
FOLDERS = ("online", "train", "valid", "test")
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
        {"name": "last", "of": "item", "by": "user", "last": 3, "where": "liked == 1", "elapsed": "ago"},
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
    blocks = {**EVERYTHING, **changes, "events": {**events, **changes.get("events", {})}}
    return build(recipe(directory, **blocks), directory / "features", quiet)


def made(directory: Path) -> dict[str, bytes]:
    """What a build wrote, by file."""
    features = directory / "features"
    files = [features / name for name in FILES]
    files += [path for name in FOLDERS for path in sorted((features / name).rglob("*.*"))]
    return {str(path.relative_to(features)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_day_on_top_of_built_days_is_the_whole_log_byte_for_byte(tmp_path: Path) -> None:
    tables = raw_tables()
    world(tmp_path / "grown", days(tables, DAYS - 1))
    grown = world(tmp_path / "grown", tables)
    whole = world(tmp_path / "whole", tables)
    assert (grown.days_reused, grown.days_built) == (DAYS - 1, 1)
    assert (whole.days_reused, whole.days_built) == (0, DAYS)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")
    again = world(tmp_path / "grown", tables)
    assert (again.days_reused, again.days_built) == (DAYS, 0)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")


@pytest.mark.slow
def test_days_that_come_one_after_another_are_the_whole_log_byte_for_byte(tmp_path: Path) -> None:
    """What is carried from day to day is what all days together would give, also after a day was opened again."""
    tables = raw_tables()
    for count in (3, 4, 5):
        world(tmp_path / "grown", days(tables, count))
    carried = {path.name.partition(".")[0] for path in (tmp_path / "grown" / "features-days" / "carried").iterdir()}
    # Of the days before the last build's, or before those whose rows are still fewer than what is carried.
    assert {name[:10] for name in carried} == {"2024-03-03", "2024-03-04"}
    tables = late(tables, 1)
    assert world(tmp_path / "grown", tables).days_reused == 1
    assert world(tmp_path / "grown", tables).days_reused == DAYS
    world(tmp_path / "whole", tables)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")


FEW: dict[str, Any] = {"aggregates": [], "histories": [], "crosses": []}
SPLITS = [{"by": "user_time", "valid": 1, "test": 1}, {"by": "random", "valid": 0.2}]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: str(split["by"]))
def test_rows_of_built_days_move_between_splits_as_in_a_build_of_the_whole_log(
    tmp_path: Path, split: dict[str, Any]
) -> None:
    world(tmp_path / "grown", days(raw_tables(), DAYS - 1), **FEW, split=split)
    for name in ("grown", "whole"):
        world(tmp_path / name, raw_tables(), **FEW, split=split)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")


def late(tables: dict[str, pa.Table], day: int) -> dict[str, pa.Table]:
    """The log with one row more in a day gone by."""
    first = tables["events"].filter(pc.equal(tables["events"]["day"], day)).slice(0, 1)
    return {**tables, "events": pa.concat_tables([tables["events"], first]).sort_by("at")}


def moved(tables: dict[str, pa.Table], user: str) -> dict[str, pa.Table]:
    """The users with another age for one."""
    users = tables["users"].to_pylist()
    ages = [50.0 if row["user"] == user else row["age"] for row in users]
    return {**tables, "users": tables["users"].set_column(1, "age", pa.array(ages))}


def test_what_earlier_days_depend_on_is_built_again_from_where_it_changed_and_said(tmp_path: Path) -> None:
    tables = raw_tables(rows=120)
    world(tmp_path, tables, **FEW)
    with pytest.raises(DataError, match="1 rows are late: they belong to 2024-03-04"):
        world(tmp_path, late(tables, 3), events={"late": "refuse"}, **FEW)
    tables = late(tables, 3)
    assert world(tmp_path, tables, **FEW).reuse == f"3 days reused, {DAYS - 3} built: 1 late rows"
    # The user who comes last: the days before are as they were.
    users = tables["events"]["user"].to_pylist()
    latest = max(set(users), key=users.index)
    first = tables["events"]["day"][users.index(latest)].as_py()
    tables = moved(tables, latest)
    told = world(tmp_path, tables, **FEW).reuse
    assert told.startswith(f"{first} days reused, {DAYS - first} built: attributes of users or items")
    assert world(tmp_path, moved(tables, "u26"), **FEW).days_reused == DAYS, "a user without events changes no row"
    told = world(tmp_path, tables, **FEW, seed=1).reuse
    assert told == f"0 days reused, {DAYS} built: the recipe, the columns or this program have changed"


def test_a_label_that_was_not_final_opens_its_day_again(tmp_path: Path) -> None:
    tasks = [
        {"name": "like", "kind": "binary", "label": "liked == 1", "within": "6h"},
        {"name": "again", "kind": "binary", "label": "liked == 1", "by": ["user"], "within": "30h"},
    ]
    changes = {"tasks": tasks, "aggregates": [{"by": ["user"], "of": ["like", "again"], "as_of": "hour"}]}
    blocks = {**changes, "histories": [], "crosses": [], "split": {"by": "user_time", "valid": 0.2}}
    world(tmp_path / "grown", days(raw_tables(), DAYS - 1), **blocks)
    grown = world(tmp_path / "grown", raw_tables(), **blocks)
    world(tmp_path / "whole", raw_tables(), **blocks)
    assert (grown.days_reused, grown.days_built) == (DAYS - 3, 3)
    assert made(tmp_path / "grown") == made(tmp_path / "whole")


def test_negatives_are_drawn_against_the_whole_log_so_nothing_is_reused(tmp_path: Path) -> None:
    blocks = {**FEW, "negatives": {"per_event": 1}, "split": SPLITS[0]}
    world(tmp_path, days(raw_tables(), DAYS - 1), **blocks)
    assert world(tmp_path, raw_tables(), **blocks).days_reused == 0


def test_days_are_kept_together_until_they_have_enough_rows(tmp_path: Path) -> None:
    world(tmp_path, raw_tables(), events={"partition_rows": 150}, **FEW)
    assert len(list((tmp_path / "features-days").glob("2024-*.parquet"))) == DAYS // 2
    assert world(tmp_path, raw_tables(), incremental=False, **FEW).days_reused == 0


def test_of_a_log_of_many_files_only_new_ones_are_read_and_moved_rows_change_nothing(tmp_path: Path) -> None:
    """Damage that does not change a file's size and time shows which files are read again."""
    tables = raw_tables()
    (tmp_path / "log").mkdir()
    parts = [tables["events"].filter(pc.equal(tables["events"]["day"], day)) for day in range(DAYS)]
    for day, part in enumerate(parts[:-1]):
        pq.write_table(part, tmp_path / "log" / f"{day}.parquet", write_page_checksum=True)
    where = {"path": str(tmp_path / "log")}
    assert world(tmp_path, tables, events=where, **FEW).days_built == DAYS - 1
    first = tmp_path / "log" / "0.parquet"
    good, times = first.read_bytes(), first.stat()
    first.write_bytes(good[:100] + bytes(100) + good[200:])
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    pq.write_table(parts[-1], tmp_path / "log" / "last.parquet", write_page_checksum=True)
    grown = world(tmp_path, tables, events=where, **FEW)
    assert (grown.days_reused, grown.days_built) == (DAYS - 1, 1)
    os.utime(first)
    with pytest.raises(DataError, match=r"0\.parquet is damaged in row group 0"):
        world(tmp_path, tables, events=where, **FEW)
    first.unlink()
    (tmp_path / "log" / "moved.parquet").write_bytes(good)
    assert world(tmp_path, tables, events=where, **FEW).days_reused == DAYS
