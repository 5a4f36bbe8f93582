"""Nights replayed one after the other: the model that each night would have made, and how good it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from contract.errors import MoerankError
from pipeline.flow.flows import build_model
from pipeline.project.log_days import ReplayedNight


@dataclass(frozen=True)
class Night:
    """A replayed night: its last day of the log, the run it made and its metrics, or why it made none.

    A `note` says why there was nothing to make; an `error` what went wrong.
    """

    day: date
    run: str = ""
    metrics: dict[str, dict[str, float]] | None = None
    error: str = ""
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        told = {"run": self.run, "metrics": self.metrics, "error": self.error, "note": self.note}
        return {"day": self.day.isoformat(), **told}

    def line(self) -> str:
        """For a person: the day, and each task's headline metric."""
        if self.metrics is None:
            return f"{self.day}  {self.error or self.note}"
        values = [f"{task} {name} {value:.4f}" for task, (name, value) in _headlines(self.metrics)]
        return f"{self.day}  {', '.join(values)}"


def backfill(
    config: Path, nights: Sequence[ReplayedNight], overrides: Sequence[str], say: Callable[[str], None]
) -> list[Night]:
    """Replay nights; none is published, and one that fails stops no other."""
    replayed = []
    for night in nights:
        found = _replay(config, night, overrides)
        say(found.line())
        replayed.append(found)
    return replayed


def _replay(config: Path, night: ReplayedNight, overrides: Sequence[str]) -> Night:
    if not night.has_events:
        return Night(night.day, note="the log has no events on this day: nothing newer than the night before")
    try:
        state: Any = build_model(config, list(overrides), until=night.day, release=False)
    except MoerankError as error:
        return Night(night.day, error=str(error))
    return Night(night.day, run=str(state["run"]), metrics=state["metrics"])


def _headlines(metrics: dict[str, dict[str, float]]) -> Iterator[tuple[str, tuple[str, float]]]:
    return ((task, next(iter(values.items()))) for task, values in metrics.items())
