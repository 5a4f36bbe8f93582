"""Nights replayed one after the other: the model that each night would have made, and how good it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from contract.errors import ConfigError, MoerankError
from pipeline.flow.flows import build_model


@dataclass(frozen=True)
class Night:
    """A replayed night: its last day of the log, the run it made and its metrics, or why it made none."""

    day: date
    run: str = ""
    metrics: dict[str, dict[str, float]] | None = None
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"day": self.day.isoformat(), "run": self.run, "metrics": self.metrics, "error": self.error}

    def line(self) -> str:
        """For a person: the day, and each task's headline metric."""
        if self.metrics is None:
            return f"{self.day}  {self.error}"
        values = [f"{task} {name} {value:.4f}" for task, (name, value) in _headlines(self.metrics)]
        return f"{self.day}  {', '.join(values)}"


def backfill(
    config: Path, first: date, last: date, overrides: Sequence[str], say: Callable[[str], None]
) -> list[Night]:
    """Replay the nights after the days `first` to `last`; none is published, and one that fails stops no other.

    Raises:
        ConfigError: `last` is before `first`.
    """
    nights = []
    for day in days(first, last):
        try:
            state: Any = build_model(config, list(overrides), until=day, release=False)
        except MoerankError as error:
            night = Night(day, error=str(error))
        else:
            night = Night(day, run=str(state["run"]), metrics=state["metrics"])
        say(night.line())
        nights.append(night)
    return nights


def days(first: date, last: date) -> Iterator[date]:
    """All days from `first` to `last`.

    Raises:
        ConfigError: there is none.

    Example:
        >>> [day.day for day in days(date(2026, 5, 1), date(2026, 5, 3))]
        [1, 2, 3]
    """
    if last < first:
        message = f"--from {first} is after --to {last}; give the earlier day first"
        raise ConfigError(message)
    return (first + timedelta(number) for number in range((last - first).days + 1))


def _headlines(metrics: dict[str, dict[str, float]]) -> Iterator[tuple[str, tuple[str, float]]]:
    return ((task, next(iter(values.items()))) for task, values in metrics.items())
