"""A new day on top of built ones against building all of them: the increment of the feature benchmark."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.feature_world import DAY_MS, DAYS, START, recipe
from features.build import build
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import Progress

Job = Callable[[Progress], object]


def jobs_of_a_day(
    log: Path, folder: Path, apart: Callable[[Job], object], days: int = DAYS
) -> tuple[Callable[[str], None], dict[str, Job]]:
    """Build all of the first `days` but the last; then what prepares a job, and the jobs ``day`` and ``whole`` by name.

    Both take up the fitted numbers of the days before, as a scheduled retraining does, and the last of these days came
    by itself too: what a day needs of the days before it was folded then. What is built here is built `apart`, so that
    jobs do not start in a process full of it.
    """
    folder.mkdir()
    files = write_days(log, folder / "log")
    for file in files[days:]:
        file.unlink()
    files = files[:days]
    settings = daily_recipe(folder / "log")
    aside = [file.rename(folder / file.name) for file in files[-2:]]
    for file in aside:
        apart(lambda progress: build(settings, folder / "before", progress))
        file.rename(folder / "log" / file.name)

    def prepare(name: str) -> None:
        for part in ("", "-days"):
            shutil.rmtree(folder / f"{name}{part}", ignore_errors=True)
        shutil.copytree(folder / "before", folder / name)
        if name == "day":
            shutil.copytree(folder / "before-days", folder / "day-days")

    def job(name: str) -> Job:
        return lambda progress: build(settings, folder / name, progress)

    return prepare, {name: job(name) for name in ("day", "whole")}


def daily_recipe(log: Path) -> FeaturesConfig:
    """The benchmark's recipe as a schedule would have it."""
    return recipe(log).model_copy(update={"grow": True, "incremental": True})


def write_days(log: Path, folder: Path) -> list[Path]:
    """The log as one file per day, as a scheduled import leaves it."""
    folder.mkdir()
    events = pq.read_table(log)
    first = int(START.timestamp() * 1000) // DAY_MS
    day = pc.subtract(pc.divide(events["at"].cast(pa.int64()), DAY_MS), first)
    files = [folder / f"{number:02d}.parquet" for number in range(DAYS)]
    for number, file in enumerate(files):
        pq.write_table(events.filter(pc.equal(day, number)), file, compression="zstd", write_page_checksum=True)
    return files
