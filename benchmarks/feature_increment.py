"""A new day on top of built ones against building all of them: the increment of the feature benchmark."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.feature_world import DAYS, START, recipe
from features.build import build

DAY_MS = 86_400_000


def write_days(log: Path, folder: Path) -> list[Path]:
    """The log as one file a day, as a scheduled import leaves it."""
    folder.mkdir()
    events = pq.read_table(log)
    day = pc.subtract(pc.divide(events["at"].cast("int64"), DAY_MS), int(START.timestamp() * 1000) // DAY_MS)
    files = [folder / f"{number:02d}.parquet" for number in range(DAYS)]
    for number, file in enumerate(files):
        pq.write_table(events.filter(pc.equal(day, number)), file, compression="zstd", write_page_checksum=True)
    return files


def prepare(log: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Build all days but the last; then the two jobs to compare, each of which can be repeated."""
    folder.mkdir()
    files = write_days(log, folder / "days")
    settings = recipe(folder / "days").model_copy(update={"grow": True, "incremental": True})
    last = files.pop()
    last.rename(folder / last.name)
    build(settings, folder / "before", _quiet)
    (folder / last.name).rename(last)

    return {
        "one day on top of 29": lambda: build(settings, _copy(folder, "day"), _quiet),
        "all 30 days": lambda: build(settings, _copy(folder, "whole", days=False), _quiet),
    }


def _copy(folder: Path, name: str, *, days: bool = True) -> Path:
    """What was built before, with or without its kept days."""
    for part in ("", "-days"):
        shutil.rmtree(folder / f"{name}{part}", ignore_errors=True)
    shutil.copytree(folder / "before", folder / name)
    if days:
        shutil.copytree(folder / "before-days", folder / f"{name}-days")
    return folder / name


def _quiet(_: str) -> None:
    """Take progress and say nothing."""
