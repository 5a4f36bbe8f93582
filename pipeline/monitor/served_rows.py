"""A day's raw rows, each scored by the version that served it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from contract.schema import Schema
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.predictions import Kind, Predictions, joined, predict
from pipeline.monitor.served_log import ServedLog
from pipeline.project.project_config import ProjectConfig
from serving.graph.engine import Engine
from serving.store import bundle
from serving.store.pointer_history import ServedStretch, served_between

Said = Callable[[str], None]


@dataclass(frozen=True)
class ServedDay:
    """A day, from `begin_ms` until before `end_ms`, and which versions served it: by the pointer, or by a log."""

    day: date
    begin_ms: int
    end_ms: int
    stretches: tuple[ServedStretch, ...]
    log: ServedLog | None = None

    @property
    def versions(self) -> list[int]:
        """The versions that served, in order."""
        if self.log is not None:
            return self.log.versions()
        return list(dict.fromkeys(part.version for part in self.stretches))

    def mask(self, version: int, rows: Predictions) -> NDArray[np.bool_]:
        """Which rows [N] a version served."""
        if self.log is not None:
            return self.log.version_of(rows.user, rows.item, rows.time) == version
        served = np.zeros(rows.rows, dtype=bool)
        for part in self.stretches:
            if part.version == version:
                served |= (rows.time >= part.begin_ms) & (rows.time < part.end_ms)
        return served

    def lines(self) -> list[str]:
        """For a person: each version and from when to when, in UTC."""
        if self.log is not None:
            return [f"version {version}: by the served log" for version in self.versions]
        return [
            f"version {part.version}: {_moment(part.begin_ms)} to {_moment(part.end_ms)} UTC" for part in self.stretches
        ]


def served_day(config: ProjectConfig, day: date) -> ServedDay:
    """Which versions served a day, whose hours are those of the log's time zone.

    Raises:
        DataError: none did, or the served log cannot be read.
    """
    zone = config.data.events.time_zone
    begin, end = RawDays(first=day, last=day).bounds(zone)
    if config.monitor.served is not None:
        log = ServedLog.read(config.monitor.served, config.name, config.data.events, (begin, end))
        return ServedDay(day, begin, end, (), log)
    stretches = served_between(config.store / config.name, begin, end)
    if not stretches:
        message = f"no version of {config.name} was served on {day} ({zone}); the store is {config.store}"
        raise DataError(message)
    return ServedDay(day, begin, end, tuple(stretches))


def rows_served_by(
    config: ProjectConfig, served: ServedDay, version: int, say: Said, kept: Path | None = None
) -> Predictions:
    """The day's rows that a version served, scored by it: by its own recipe on the log where it lies today.

    Raises:
        DataError: the version served none of the rows, or the log has none of that day.
        IntegrityError: the bundle is damaged, or it is gone.
    """
    path = config.store / config.name / str(version)
    schema = bundle.load(path).schema
    recipe = FittedRecipe.load(path)
    days = RawDays.of(config.data, recipe.config, served.day, served.day)
    with encoded_days(recipe, days, say, kept) as encoded:
        say(f"scoring by version {version}")
        scored = predict(Engine(path, schema, threads=config.evaluate.threads), encoded.dataset, schema)
    chosen = np.flatnonzero(served.mask(version, scored))
    if chosen.size == 0:
        message = f"version {version} served none of the {scored.rows} rows of {served.day}"
        raise DataError(message)
    return scored.take(chosen)


def together(parts: Sequence[Predictions]) -> Predictions:
    """The rows of several versions, with the tasks that all of them have.

    Raises:
        DataError: they have no task in common.
    """
    tasks = {name: kind for name, kind in parts[0].tasks.items() if all(part.tasks.get(name) == kind for part in parts)}
    if not tasks:
        message = "the versions that served have no task in common, so their rows cannot be judged together"
        raise DataError(message)
    return joined([_with_tasks(part, tasks) for part in parts])


def _with_tasks(part: Predictions, tasks: dict[str, Kind]) -> Predictions:
    """The same rows with these tasks alone, and nothing that is of one version."""
    columns = [list(part.tasks).index(name) for name in tasks]
    chosen = {name: getattr(part, name)[:, columns] for name in ("labels", "weights", "scores")}
    return replace(part, tasks=tasks, schema_fingerprint="", encoding="", **chosen)


def training_means(config: ProjectConfig, version: int, tasks: Sequence[str], rows: int) -> NDArray[np.float32]:
    """What a version's training rows had as mean label of each task, for every row: [N, T]."""
    schema = Schema.load(config.store / config.name / str(version))
    rates = {task.name: task.base_rate for task in schema.tasks}
    return np.tile(np.array([rates[task] for task in tasks], dtype=np.float32), (rows, 1))


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"
