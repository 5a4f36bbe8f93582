"""Curves for the report: ROC and reliability of binary tasks, predicted against actual of regression tasks."""

from pathlib import Path
from typing import Literal

import numpy as np

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation import metrics
from pipeline.evaluation.ranking import Floats, Ranking
from pipeline.evaluation.task_rows import TaskRows

ROC_POINTS = 200
BINS = 20
CURVES_FILE = "curves.json"


class Bin(Settings):
    """Rows of about equal score: their mean score and mean label.

    `low` to `high` is a 95 % interval of a binary label's mean, or the middle 80 % of a regression label.
    """

    predicted: float
    actual: float
    low: float
    high: float
    rows: int


class TaskCurves(Settings):
    """`roc` holds (false positive rate, true positive rate); empty for a regression task or rows of one class."""

    kind: Literal["binary", "regression"] = "binary"
    roc: tuple[tuple[float, float], ...] = ()
    bins: tuple[Bin, ...] = ()


class Curves(Settings):
    """The curves of each task."""

    tasks: dict[str, TaskCurves]

    def save(self, directory: Path) -> None:
        """Write ``curves.json``."""
        write_text(self.model_dump_json(), directory / CURVES_FILE)

    @classmethod
    def load(cls, directory: Path) -> "Curves":
        """Read ``curves.json``.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / CURVES_FILE).read_bytes())
        except (OSError, ValueError) as error:
            message = f"{directory / CURVES_FILE} cannot be read: {error}; evaluate again"
            raise DataError(message) from error


def draw(tasks: dict[str, TaskRows]) -> Curves:
    """Compute the curves of each task; empty where its rows do not define them."""
    return Curves(
        tasks={name: TaskCurves(kind=rows.kind, roc=_roc(rows), bins=_bins(rows)) for name, rows in tasks.items()}
    )


def _roc(rows: TaskRows) -> tuple[tuple[float, float], ...]:
    if rows.kind == "regression" or not 0 < (rows.positives or 0) < rows.labels.size:
        return ()
    false, true = Ranking.of(rows.labels, rows.scores).roc()
    # Even steps along the curve's length keep its steep start, which even steps of one rate would cut off.
    length: Floats = false + true
    keep = np.unique(np.searchsorted(length, np.linspace(0.0, 2.0, ROC_POINTS)).clip(max=length.size - 1))
    return tuple(zip(false[keep].round(5).tolist(), true[keep].round(5).tolist(), strict=True))


def _bins(rows: TaskRows) -> tuple[Bin, ...]:
    labels, scores = rows.labels.astype(np.float64), rows.scores.astype(np.float64)
    if labels.size == 0:
        return ()
    index = metrics.bins_of(scores, BINS)
    found = []
    for number in np.unique(index):
        mine = index == number
        actual, count = float(labels[mine].mean()), int(mine.sum())
        if rows.kind == "binary":
            # Wilson's interval: stays within 0 and 1 for the rarest labels.
            low, high = _wilson(actual, count)
        else:
            low, high = (float(edge) for edge in np.quantile(labels[mine], (0.1, 0.9)))
        found.append(Bin(predicted=float(scores[mine].mean()), actual=actual, low=low, high=high, rows=count))
    return tuple(found)


def _wilson(rate: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    centre = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * np.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    return float(centre - half), float(centre + half)
