"""Which metrics a task gets, and their values with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from contract.settings import Settings
from pipeline.evaluation import linearised_auc, metrics
from pipeline.evaluation.concordance import concordance
from pipeline.evaluation.intervals import (
    Bootstrap,
    RankStatistic,
    Statistic,
    SumStatistic,
    Users,
    bin_statistic,
    interval,
)
from pipeline.evaluation.metrics import Floats, Ranking, Values

NDCG_AT = 10
ECE_BINS = 20
EXACT_ROWS = 20_000
"""Up to so many rows the draws of AUC and average precision are exact, above that they are to first order."""
HEADLINE: dict[str, str] = {"binary": "auc", "regression": "rmse"}
LOWER_IS_BETTER = frozenset({"log_loss", "ne", "ece", "rmse", "mae"})


class Estimate(Settings):
    """One metric: its value, its 95 % interval, and the rows and positive labels it was computed on."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    positives: int | None


Scores = dict[str, Estimate]
"""Metric -> estimate."""


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task to judge: labels and scores float [n]; `grouped` says that users are real."""

    name: str
    kind: Literal["binary", "regression"]
    labels: Values
    scores: Values
    users: Users
    grouped: bool = True

    @property
    def positives(self) -> int | None:
        """Rows with a positive label; None for a regression task."""
        return int(np.count_nonzero(self.labels == 1)) if self.kind == "binary" else None

    def statistics(self) -> list[Statistic]:
        """The metrics of this kind of task.

        Raises:
            DataError: no rows, one class only, or values that are not finite.
        """
        return _binary(self) if self.kind == "binary" else _regression(self)


def _binary(rows: TaskRows) -> list[Statistic]:
    labels, scores, users = rows.labels, rows.scores.astype(np.float64), rows.users
    # The plain function also refuses what cannot be judged.
    metrics.auc(labels, rows.scores, name=rows.name)
    ranking = Ranking.of(labels, rows.scores)
    pointwise = users.sums(metrics.row_log_loss(labels, scores), labels, scores, np.ones(labels.size))
    bins = metrics.bins_of(scores, ECE_BINS)
    found: list[Statistic] = [
        *_ranked(ranking, users),
        SumStatistic(("log_loss", "ne", "calibration"), pointwise, _finish_binary),
        bin_statistic(scores - labels, users, bins),
    ]
    return [*found, *_by_user(rows)] if rows.grouped else found


def _ranked(ranking: Ranking, users: Users) -> list[Statistic]:
    """AUC and average precision: recomputed for each draw, or to first order where that would take long."""
    if ranking.order.size <= EXACT_ROWS:
        return [RankStatistic(ranking, users.group[ranking.order])]
    positive = np.empty(ranking.order.size)
    positive[ranking.order] = ranking.positive
    precision = users.sums(linearised_auc.precision_shares(ranking), positive)
    pairs = users.sums(*linearised_auc.auc_shares(ranking))
    return [_pair_statistic("auc", pairs), SumStatistic(("pr_auc",), precision, _finish_mean)]


def _by_user(rows: TaskRows) -> list[Statistic]:
    """GAUC and NDCG, each only where at least one user defines it."""
    present = np.flatnonzero(np.bincount(rows.users.group, minlength=rows.users.count))
    areas, sizes = metrics.user_auc(rows.labels, rows.scores, rows.users.group)
    gains = metrics.user_ndcg(rows.labels, rows.scores, rows.users.group, NDCG_AT)
    found: list[Statistic] = []
    for name, values, weights in (("gauc", areas, sizes), (f"ndcg@{NDCG_AT}", gains, np.ones(gains.size))):
        judged = np.isfinite(values)
        if judged.any():
            sums = np.zeros((rows.users.count, 2))
            sums[present[judged]] = np.stack((values[judged] * weights[judged], weights[judged]), axis=1)
            found.append(SumStatistic((name,), sums, _finish_mean))
    return found


def _regression(rows: TaskRows) -> list[Statistic]:
    labels, scores = rows.labels.astype(np.float64), rows.scores.astype(np.float64)
    metrics.check(labels, scores, rows.name)
    error = scores - labels
    pointwise = rows.users.sums(np.square(error), np.abs(error), labels, scores, np.ones(labels.size))
    found: list[Statistic] = [SumStatistic(("rmse", "mae", "calibration"), pointwise, _finish_regression)]
    counts = concordance(labels, rows.scores)
    if counts.pairs.any():
        found.append(_pair_statistic("xauc", rows.users.sums(counts.right, counts.pairs)))
    return found


def _pair_statistic(name: str, sums: Floats) -> Statistic:
    """A share of row pairs under weights w, to first order in w - 1: a pair's weight w_i w_j is w_i + w_j - 1."""
    whole = sums.sum(axis=0)

    def finish(totals: Floats) -> Sequence[float]:
        right, pairs = 2.0 * totals - whole
        return [_ratio(right, pairs)]

    return SumStatistic((name,), sums, finish)


def _finish_binary(totals: Floats) -> Sequence[float]:
    loss, actual, predicted, rows = totals
    rate = _ratio(actual, rows)
    entropy = metrics.entropy(rate) if 0.0 < rate < 1.0 else 0.0
    mean_loss = _ratio(loss, rows)
    return [mean_loss, _ratio(mean_loss, entropy), _ratio(predicted, actual)]


def _finish_regression(totals: Floats) -> Sequence[float]:
    squares, absolutes, actual, predicted, rows = totals
    return [float(np.sqrt(_ratio(squares, rows))), _ratio(absolutes, rows), _ratio(predicted, actual)]


def _finish_mean(totals: Floats) -> Sequence[float]:
    return [_ratio(totals[0], totals[1])]


def _ratio(above: float, below: float) -> float:
    """A quotient, or NaN where the draw leaves nothing to divide by."""
    return float(above / below) if below != 0.0 else float("nan")


def judge(tasks: Mapping[str, TaskRows], bootstrap: Bootstrap) -> dict[str, Scores]:
    """Every metric of every task with its interval; all are recomputed on the same draws of users.

    Raises:
        DataError: a task cannot be judged on its rows.
    """
    statistics = {name: rows.statistics() for name, rows in tasks.items()}
    flat = [statistic for several in statistics.values() for statistic in several]
    draws = iter(bootstrap.run(flat))
    whole = np.ones(bootstrap.users)
    found: dict[str, Scores] = {}
    for name, several in statistics.items():
        found[name] = {}
        for statistic in several:
            for metric, value, values in zip(statistic.names, statistic(whole), next(draws).T, strict=True):
                # A metric such as predicted / actual may have no value where the labels sum to 0.
                if np.isfinite(value):
                    low, high = interval(values)
                    rows = tasks[name]
                    found[name][metric] = Estimate(
                        value=float(value), low=low, high=high, n=rows.labels.size, positives=rows.positives
                    )
    return found
