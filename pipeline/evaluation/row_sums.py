"""Metrics that follow from sums over rows: what is summed, and how the metrics follow from the totals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.evaluation import metrics
from pipeline.evaluation.ranking import Floats, Values


@dataclass(frozen=True)
class RowSums:
    """`columns` maps labels and scores [n] to what is summed, None for the rows themselves; `finish` maps totals."""

    names: tuple[str, ...]
    columns: Callable[[Values, Values], tuple[Floats | None, ...]]
    finish: Callable[[Floats], Sequence[float]]

    def weighed(self, labels: Values, scores: Values, weights: Floats | None) -> list[Floats | None]:
        """The columns times the rows' weights; None where both are ones."""
        columns = self.columns(labels, scores)
        if weights is None:
            return list(columns)
        return [weights if column is None else column * weights for column in columns]


def _binary_columns(labels: Values, scores: Values) -> tuple[Floats | None, ...]:
    p = scores.astype(np.float64)
    return metrics.row_log_loss(labels, p), labels.astype(np.float64), p, None


def _finish_binary(totals: Floats) -> Sequence[float]:
    loss, actual, predicted, rows = totals
    rate = ratio(actual, rows)
    entropy = metrics.entropy(rate) if 0.0 < rate < 1.0 else 0.0
    mean_loss = ratio(loss, rows)
    return [mean_loss, ratio(mean_loss, entropy), ratio(predicted, actual)]


def _regression_columns(labels: Values, scores: Values) -> tuple[Floats | None, ...]:
    actual, predicted = labels.astype(np.float64), scores.astype(np.float64)
    error = predicted - actual
    return np.square(error), np.abs(error), actual, predicted, None, np.square(actual)


def _finish_regression(totals: Floats) -> Sequence[float]:
    squares, absolutes, actual, predicted, rows, label_squares = totals
    spread = label_squares - actual * ratio(actual, rows)
    # Of equal labels rounding leaves a little.
    r2 = 1.0 - ratio(squares, spread if spread > 1e-9 * max(label_squares, 1e-300) else 0.0)
    return [float(np.sqrt(ratio(squares, rows))), ratio(absolutes, rows), ratio(predicted, actual), r2]


def ratio(above: float, below: float) -> float:
    """A quotient, or NaN where the draw leaves nothing to divide by."""
    return float(above / below) if below != 0.0 else float("nan")


ROW_SUMS: dict[Literal["binary", "regression"], RowSums] = {
    "binary": RowSums(("log_loss", "ne", "calibration"), _binary_columns, _finish_binary),
    "regression": RowSums(("rmse", "mae", "calibration", "r2"), _regression_columns, _finish_regression),
}
