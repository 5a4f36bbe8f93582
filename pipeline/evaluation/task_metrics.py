"""Which metrics a task gets, and their values with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from contract.settings import Settings
from pipeline.evaluation import linearised_auc, metrics
from pipeline.evaluation.calibration_error import CalibrationError
from pipeline.evaluation.concordance import concordance
from pipeline.evaluation.intervals import Bootstrap, RankStatistic, Statistic, SumStatistic, interval
from pipeline.evaluation.list_metrics import RankedLists
from pipeline.evaluation.metrics import Floats, Ranking, Values
from pipeline.evaluation.task_rows import HEADLINE, TaskRows, TaskStatistics

__all__ = ["HEADLINE", "Estimate", "Scores", "TaskResults", "TaskRows", "evaluate_tasks", "task_statistics"]

LISTS_AT = (10,)
ECE_BINS = 20
EXACT_ROWS = 20_000
"""Up to so many rows the draws of AUC and average precision are exact, above that they are to first order."""
_OF_PROBABILITIES = frozenset({"log_loss", "ne", "calibration", "ece"})
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
class TaskResults:
    """By task the metrics that its rows define, and by task and metric why the others are not defined."""

    scores: dict[str, Scores]
    undefined: dict[str, dict[str, str]]


def task_statistics(rows: TaskRows, at: Sequence[int] = LISTS_AT) -> TaskStatistics:
    """The metrics of this kind of task; those of lists at each k of `at`.

    Raises:
        DataError: values that are not finite, or labels that are not those of the kind of task.
    """
    rows.check()
    names = metric_names(rows.kind, at, grouped=rows.grouped)
    if rows.labels.size == 0:
        return TaskStatistics([], dict.fromkeys(names, "the task applies to none of the rows"))
    statistics = _binary(rows, at) if rows.kind == "binary" else _regression(rows)
    whole = np.ones(rows.users.count)
    defined = {
        name
        for each in statistics
        for name, value in zip(each.names, each(whole), strict=True)
        if np.isfinite(value)
    }  # fmt: skip
    return TaskStatistics(statistics, {name: _reason(rows, name) for name in names if name not in defined})


def metric_names(kind: str, at: Sequence[int] = LISTS_AT, *, grouped: bool = True) -> list[str]:
    """All metrics that a kind of task may get; `grouped`: rows have users.

    Example:
        >>> metric_names("regression")
        ['rmse', 'mae', 'r2', 'calibration', 'xauc']
    """
    if kind == "regression":
        return ["rmse", "mae", "r2", "calibration", "xauc"]
    names = ["auc", "pr_auc", "lift", "log_loss", "ne", "calibration", "ece"]
    lists = [f"{name}@{k}" for k in at for name in ("ndcg", "mrr", "map", "precision", "recall")]
    return [*names, "gauc", *lists] if grouped else names


def _reason(rows: TaskRows, metric: str) -> str:
    """Why these rows do not define a metric."""
    count = rows.labels.size
    if rows.kind == "regression":
        equal = f"all {count} labels are {rows.labels[0]:g}"
        return equal if metric in {"xauc", "r2"} else f"the {count} labels sum to 0"
    if metric in _OF_PROBABILITIES and not _are_probabilities(rows.scores):
        return f"the scores are no probabilities: they lie from {rows.scores.min():.4g} to {rows.scores.max():.4g}"
    if rows.positives == 0:
        return f"none of the {count} rows is positive"
    if rows.positives == count:
        return f"all {count} rows are positive"
    if metric == "gauc":
        return "no user has rows of both classes"
    return "no user has two rows of which one is positive"


def _are_probabilities(scores: Values) -> bool:
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


def _binary(rows: TaskRows, at: Sequence[int]) -> list[Statistic]:
    labels, scores, users, weights = rows.labels, rows.scores.astype(np.float64), rows.users, rows.row_weights
    loss = metrics.row_log_loss(labels, scores)
    pointwise = users.sums(weights * loss, weights * labels, weights * scores, weights)
    bins = metrics.bins_of(scores, ECE_BINS)
    found: list[Statistic] = []
    if 0 < (rows.positives or 0) < labels.size:
        found += _ranked(rows)
    if _are_probabilities(scores):
        found += [
            SumStatistic(("log_loss", "ne", "calibration"), pointwise, _finish_binary),
            CalibrationError.of(weights * (scores - labels), users, bins, weights),
        ]
    return [*found, *_by_user(rows, at)] if rows.grouped else found


def _ranked(rows: TaskRows) -> list[Statistic]:
    """AUC and average precision: recomputed for each draw, or to first order where that would take long."""
    ranking = Ranking.of(rows.labels, rows.scores)
    lift = SumStatistic(("lift",), rows.users.sums(*_top_tenth(rows, ranking)), _finish_lift)
    if ranking.order.size <= EXACT_ROWS:
        ranked_weights = None if rows.weights is None else rows.weights[ranking.order]
        return [RankStatistic(ranking, rows.users.group[ranking.order], ranked_weights), lift]
    weights = rows.row_weights
    precision = rows.users.sums(linearised_auc.precision_shares(ranking, weights), weights * (rows.labels == 1))
    pairs = rows.users.sums(*linearised_auc.auc_shares(ranking, weights))
    return [_pair_statistic("auc", pairs), SumStatistic(("pr_auc",), precision, _finish_mean), lift]


def _top_tenth(rows: TaskRows, ranking: Ranking) -> tuple[Values, Values, Values, Values]:
    """Positives and rows among the tenth with the highest scores, and among all; ties at its end count in part."""
    size = rows.labels.size
    bounds = np.append(0, ranking.ends + 1)
    inside = np.clip((size * 0.1 - bounds[:-1]) / np.diff(bounds), 0.0, 1.0)
    share = np.empty(size)
    share[ranking.order] = np.repeat(inside, np.diff(bounds))
    weights, positive = rows.row_weights, rows.labels == 1
    return share * weights * positive, share * weights, weights * positive, weights


def _by_user(rows: TaskRows, at: Sequence[int]) -> list[Statistic]:
    """GAUC and the metrics of lists, each where at least one user defines it."""
    present = np.flatnonzero(np.bincount(rows.users.group, minlength=rows.users.count))
    areas, sizes = metrics.user_auc(rows.labels, rows.scores, rows.users.group)
    by_user = np.full(rows.users.count, np.nan)
    by_user[present] = areas
    row_weight = np.bincount(rows.users.group, weights=rows.weights, minlength=rows.users.count).astype(np.float64)
    del sizes
    found: list[Statistic] = [_mean_of_users("gauc", by_user, row_weight)]
    lists = RankedLists.of(rows.labels, rows.scores, rows.users.group, rows.users.count)
    for k in at:
        found += [_mean_of_users(name, values, np.ones(values.size)) for name, values in lists.metrics(k).items()]
    return found


def _mean_of_users(name: str, values: Floats, weights: Floats) -> Statistic:
    defined = np.isfinite(values)
    sums = np.stack((np.where(defined, values, 0.0) * weights, defined * weights), axis=1)
    return SumStatistic((name,), sums, _finish_mean)


def _regression(rows: TaskRows) -> list[Statistic]:
    labels, scores, weights = rows.labels.astype(np.float64), rows.scores.astype(np.float64), rows.row_weights
    error = scores - labels
    columns = (np.square(error), np.abs(error), labels, scores, np.ones(labels.size), np.square(labels))
    pointwise = rows.users.sums(*(weights * column for column in columns))
    found: list[Statistic] = [SumStatistic(("rmse", "mae", "calibration", "r2"), pointwise, _finish_regression)]
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
    squares, absolutes, actual, predicted, rows, label_squares = totals
    spread = label_squares - actual * _ratio(actual, rows)
    # Of equal labels rounding leaves a little.
    r2 = 1.0 - _ratio(squares, spread if spread > 1e-9 * max(label_squares, 1e-300) else 0.0)
    return [float(np.sqrt(_ratio(squares, rows))), _ratio(absolutes, rows), _ratio(predicted, actual), r2]


def _finish_lift(totals: Floats) -> Sequence[float]:
    top, top_rows, actual, rows = totals
    return [_ratio(_ratio(top, top_rows), _ratio(actual, rows))]


def _finish_mean(totals: Floats) -> Sequence[float]:
    return [_ratio(totals[0], totals[1])]


def _ratio(above: float, below: float) -> float:
    """A quotient, or NaN where the draw leaves nothing to divide by."""
    return float(above / below) if below != 0.0 else float("nan")


def evaluate_tasks(
    tasks: Mapping[str, TaskRows], bootstrap: Bootstrap, at: Sequence[int] = LISTS_AT
) -> TaskResults:  # fmt: skip
    """Every metric of every task with its interval; all are recomputed on the same draws of users.

    Raises:
        DataError: a task's values are not finite, or not those of its kind.
    """
    tasks_with = {name: task_statistics(rows, at) for name, rows in tasks.items()}
    draws = iter(bootstrap.run([statistic for each in tasks_with.values() for statistic in each.statistics]))
    scores: dict[str, Scores] = {}
    for name, each in tasks_with.items():
        scores[name] = {}
        for statistic in each.statistics:
            scores[name] |= _estimates(statistic, next(draws), tasks[name], bootstrap.users)
    return TaskResults(scores, {name: each.undefined for name, each in tasks_with.items() if each.undefined})


def _estimates(statistic: Statistic, draws: Floats, rows: TaskRows, users: int) -> Scores:
    found: Scores = {}
    for metric, value, values in zip(statistic.names, statistic(np.ones(users)), draws.T, strict=True):
        if np.isfinite(value):
            best, low, high = float(value), *interval(values)
            if isinstance(statistic, CalibrationError):
                best, low, high = statistic.estimate()
            found[metric] = Estimate(value=best, low=low, high=high, n=rows.labels.size, positives=rows.positives)
    return found
