"""Curves for the report: ROC, precision and recall, reliability, predicted against actual, and scores by label."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from features.quality.histograms import bin_shares, histogram_edges
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


class ScoreHistogram(Settings):
    """The shares of a task's rows in each bin of scores between `edges`, by what they are; each sums to 1.

    `shares` are of ``positive`` and ``negative`` rows, or of a regression's ``label`` and ``prediction``.
    """

    edges: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


class TaskCurves(Settings):
    """The curves of a task.

    `roc` holds (false positive rate, true positive rate) and `pr` (recall, precision); both are empty for a regression
    task or rows of one class.
    """

    kind: Literal["binary", "regression"] = "binary"
    roc: tuple[tuple[float, float], ...] = ()
    pr: tuple[tuple[float, float], ...] = ()
    bins: tuple[Bin, ...] = ()
    histogram: ScoreHistogram | None = None


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
    return Curves(tasks={name: _curves(rows) for name, rows in tasks.items()})


def _curves(rows: TaskRows) -> TaskCurves:
    curves: dict[str, Any] = {"bins": _bins(rows), "histogram": _histogram(rows)}
    if rows.kind == "binary" and 0 < (rows.positives or 0) < rows.labels.size:
        ranking = Ranking.of(rows.labels, rows.scores)
        curves |= {"roc": _roc(ranking), "pr": _pr(ranking)}
    return TaskCurves(kind=rows.kind, **curves)


def _histogram(rows: TaskRows) -> ScoreHistogram | None:
    scores, labels = rows.scores.astype(np.float64), rows.labels.astype(np.float64)
    if scores.size == 0:
        return None
    if rows.kind == "binary":
        parts = {"negative": scores[labels == 0], "positive": scores[labels == 1]}
        edges, _ = histogram_edges(scores)
    else:
        parts = {"label": labels, "prediction": scores}
        edges, _ = histogram_edges(np.concatenate([labels, scores]))
    return ScoreHistogram(edges=edges, shares={name: bin_shares(values, edges) for name, values in parts.items()})


def _pr(ranking: Ranking) -> tuple[tuple[float, float], ...]:
    """Recall and precision from the highest scores down, in even steps of recall."""
    _, true = ranking.roc()
    rows = ranking.ends + 1
    recall, precision = true[1:], true[1:] * float(ranking.positive.sum()) / rows
    keep = np.unique(np.searchsorted(recall, np.linspace(0.0, 1.0, ROC_POINTS)).clip(max=recall.size - 1))
    return tuple(zip(recall[keep].round(5).tolist(), precision[keep].round(5).tolist(), strict=True))


def _roc(ranking: Ranking) -> tuple[tuple[float, float], ...]:
    false, true = ranking.roc()
    # Even steps along the curve's length keep its steep start, which even steps of one rate would cut off.
    length: Floats = false + true
    keep = np.unique(np.searchsorted(length, np.linspace(0.0, 2.0, ROC_POINTS)).clip(max=length.size - 1))
    return tuple(zip(false[keep].round(5).tolist(), true[keep].round(5).tolist(), strict=True))


def _bins(rows: TaskRows) -> tuple[Bin, ...]:
    labels, scores = rows.labels.astype(np.float64), rows.scores.astype(np.float64)
    if labels.size == 0:
        return ()
    index = metrics.bins_of(scores, BINS)
    counts = np.bincount(index)
    means = [np.bincount(index, weights=values) / np.maximum(counts, 1) for values in (scores, labels)]
    bins = []
    for number in np.flatnonzero(counts):
        count, (predicted, actual) = int(counts[number]), (float(each[number]) for each in means)
        if rows.kind == "binary":
            # Wilson's interval: stays within 0 and 1 for the rarest labels.
            low, high = _wilson(actual, count)
        else:
            low, high = (float(edge) for edge in np.quantile(labels[index == number], (0.1, 0.9)))
        bins.append(Bin(predicted=predicted, actual=actual, low=low, high=high, rows=count))
    return tuple(bins)


def _wilson(rate: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    centre = (rate + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z * np.sqrt(rate * (1 - rate) / rows + z * z / (4 * rows * rows)) / (1 + z * z / rows)
    return float(centre - half), float(centre + half)
