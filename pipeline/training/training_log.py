"""What training writes down: ``history.json``, what trackers take, and lines for a person."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from contract.files import write_text
from pipeline.training.run_progress import EpochRecord, RunProgress
from pipeline.training.trackers import Tracker

HISTORY_FILE = "history.json"
Say = Callable[[str], None]
_LIVE_INTERVAL_S = 0.25


class TrainingLog:
    """The log of one run; other ranks than the first keep none."""

    def __init__(
        self,
        run_dir: Path,
        say: Say,
        live: Say | None,
        tracked: Sequence[Tracker],
        settings: Mapping[str, JsonValue],
        *,
        writes: bool,
    ) -> None:
        """Go on with the log of a run; trackers are told its `settings` with the first epoch's metrics."""
        self._run_dir, self._writes = run_dir, writes
        self._trackers, self._settings = tracked if writes else (), settings
        self._say = say if writes else _silent
        self._live = live if writes else None
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()

    def say(self, text: str) -> None:
        """Tell a person."""
        self._say(text)

    def live(self, text: Callable[[], str], *, at_once: bool = False) -> None:
        """Tell what changes all the time, a few times a second, or `at_once`."""
        if self._live is not None and (at_once or time.monotonic() - self._told > _LIVE_INTERVAL_S):
            self._told = time.monotonic()
            self._live(text())

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Tell the trackers numbers by name."""
        for tracker in self._trackers:
            tracker.scalars(values, step)

    def image(self, name: str, image_3HW: NDArray[np.uint8], progress: RunProgress) -> None:
        """Tell the trackers a picture."""
        for tracker in self._trackers:
            tracker.image(name, image_3HW, progress.step)

    def check(self, record: EpochRecord, progress: RunProgress) -> None:
        """Write the scalars of a validation within an epoch, and tell a person."""
        self.scalars(flat({"valid": record["valid"]}), progress.step)
        best = " (best)" if progress.best is not None and progress.best.step == progress.step else ""
        self.say(f"epoch {progress.epoch + 1}, row {progress.row:,}{best}: {_figures(record)}")

    def epoch(self, progress: RunProgress) -> None:
        """Write the history so far and the last epoch's scalars, and tell a person."""
        record = progress.history[-1]
        if progress.epoch == 1:
            valid = flat({"valid": record.get("valid", {})})
            for tracker in self._trackers:
                tracker.settings(plain(self._settings), valid)
        self.scalars(flat(record), progress.step)
        if self._writes:
            history = {"epochs": list(progress.history), "checks": list(progress.checks)}
            write_text(json.dumps(history, indent=1) + "\n", self._run_dir / HISTORY_FILE)
        self.say(summary(record, progress))


def summary(record: EpochRecord, progress: RunProgress) -> str:
    """An epoch in one line."""
    # The best validation of the epoch may have been one in its middle.
    best = " (best)" if progress.best is not None and progress.best.step == progress.step else ""
    rate = record["rows_per_second"]
    return f"epoch {progress.epoch}{best}: {_figures(record) or 'no validation'}; {rate:,.0f} rows/s"


def _figures(record: EpochRecord) -> str:
    return ", ".join(
        f"{name.removeprefix('valid/')} {value:.4f}"
        for name, value in flat(record).items()
        if name.startswith("valid/")
    )


def flat(record: Mapping[str, JsonValue], prefix: str = "") -> dict[str, float]:
    """A record's numbers by path, such as ``valid/like/auc``."""
    numbers: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            numbers[prefix + name] = float(value)
    return numbers


def plain(values: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings by path, lists as text; those that are not set are left out.

    Example:
        >>> plain({"train": {"seed": 3, "teacher": None, "reset": ["gates"]}})
        {'train.seed': 3, 'train.reset': "['gates']"}
    """
    settings: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            settings |= plain(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            settings |= {prefix + name: str(value)} if value else {}
        elif value is not None:
            settings[prefix + name] = value
    return settings


def _silent(text: str) -> None:
    del text
