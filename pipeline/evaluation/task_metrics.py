"""Which metrics a task gets, and their values with intervals."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from contract.settings import Settings
from pipeline.evaluation import linearised_auc
from pipeline.evaluation.calibration_error import CalibrationError
from pipeline.evaluation.concordance import Concordance, concordance
from pipeline.evaluation.intervals import Bootstrap, RankStatistic, Statistic, SumStatistic, Users, interval_of
from pipeline.evaluation.list_metrics import RankedLists
from pipeline.evaluation.ranking import Floats, Ranking, Values
from pipeline.evaluation.row_sums import ROW_SUMS, ratio
from pipeline.evaluation.task_rows import HEADLINE, TaskRows, TaskStatistics

__all__ = ["HEADLINE", "Estimate", "Scores", "TaskResults", "TaskRows", "evaluate_tasks", "task_statistics"]

LISTS_AT = (10,)
ECE_BINS = 20
EXACT_ROWS = 20_000
"""Up to so many rows the draws of AUC and average precision are exact, above that they are to first order."""
_PARALLEL_ROWS = 1_000_000
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
    """By task the metrics that its rows define, and by task and metric why the others are not defined.

    `statistics` are what the scores of a task come from.
    """

    scores: dict[str, Scores]
    undefined: dict[str, dict[str, str]]
    statistics: dict[str, list[Statistic]]


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
        ['rmse', 'mae', 'r2', 'calibration', 'xauc', 'gxauc']
    """
    if kind == "regression":
        names = ["rmse", "mae", "r2", "calibration", "xauc"]
        return [*names, "gxauc"] if grouped else names
    names = ["auc", "pr_auc", "lift", "log_loss", "ne", "calibration", "ece"]
    lists = [f"{name}@{k}" for k in at for name in ("ndcg", "mrr", "map", "precision", "recall")]
    return [*names, "gauc", *lists] if grouped else names


def _reason(rows: TaskRows, metric: str) -> str:
    """Why these rows do not define a metric."""
    count = rows.labels.size
    if rows.kind == "regression":
        return _regression_reason(rows, metric)
    if metric in _OF_PROBABILITIES and not _are_probabilities(rows.scores):
        return f"the scores are not probabilities: they lie from {rows.scores.min():.4g} to {rows.scores.max():.4g}"
    if rows.positives == 0:
        return f"none of the {count} rows is positive"
    if rows.positives == count:
        return f"all {count} rows are positive"
    if metric == "gauc":
        return "no user has rows of both classes"
    return "no user has two rows of which one is positive"


def _regression_reason(rows: TaskRows, metric: str) -> str:
    if metric == "gxauc" and np.ptp(rows.labels) > 0.0:
        return "no user has rows with different labels"
    count = rows.labels.size
    equal = f"all {count} labels are {rows.labels[0]:g}"
    return equal if metric in {"xauc", "gxauc", "r2"} else f"the {count} labels sum to 0"


def _are_probabilities(scores: Values) -> bool:
    return bool(scores.min() >= 0.0 and scores.max() <= 1.0)


def _binary(rows: TaskRows, at: Sequence[int]) -> list[Statistic]:
    ranked = RankedRows.of(rows)
    parts: list[Callable[[], list[Statistic]]] = []
    if 0 < (rows.positives or 0) < rows.labels.size:
        parts.append(lambda: _ranked(ranked))
    if _are_probabilities(rows.scores):
        parts.append(lambda: _of_probabilities(ranked))
    if rows.grouped:
        parts.append(lambda: _by_list(ranked, at))
    if rows.labels.size < _PARALLEL_ROWS:
        return [statistic for part in parts for statistic in part()]
    # NumPy computes without the interpreter's lock.
    with ThreadPoolExecutor(len(parts)) as workers:
        return [
            statistic for part_statistics in workers.map(lambda part: part(), parts) for statistic in part_statistics
        ]


def _of_probabilities(rows: "RankedRows") -> list[Statistic]:
    scores, labels, of = rows.scores, rows.ranking.positive, ROW_SUMS["binary"]
    pointwise = rows.users.sums(*of.weighed(labels, scores, rows.weights))
    gap = scores - labels if rows.weights is None else rows.weights * (scores - labels)
    bins = rows.ranking.bins(ECE_BINS, rows.weights)
    return [
        SumStatistic(of.names, pointwise, of.finish),
        CalibrationError.of(gap, rows.users, bins, rows.weights),
    ]


@dataclass(frozen=True)
class RankedRows:
    """The rows of a binary task by falling score: everything [n] is in that order."""

    ranking: Ranking
    users: Users
    lists: Users | None
    scores: Floats
    weights: Floats | None

    @classmethod
    def of(cls, rows: TaskRows) -> "RankedRows":
        """Sort once."""
        ranking = Ranking.of(rows.labels, rows.scores)
        order = ranking.order
        return cls(
            ranking,
            Users(rows.users.group[order], rows.users.count),
            None if rows.lists is None else Users(rows.lists.group[order], rows.lists.count),
            rows.scores[order].astype(np.float64),
            None if rows.weights is None else rows.weights[order],
        )

    def sums(self, *columns: Floats | None) -> Floats:
        """Weighted sums of columns [n] by user, [U, K]; None sums the weights alone."""
        weighed = [
            self.weights if column is None else column if self.weights is None else column * self.weights
            for column in columns
        ]
        return self.users.sums(*weighed)


def _ranked(rows: RankedRows) -> list[Statistic]:
    """AUC and average precision: recomputed for each draw, or to first order where that would take long."""
    ranking, weights = rows.ranking, rows.weights
    positives, both = rows.sums(ranking.positive, None).T
    lift = SumStatistic(("lift",), _top_tenth(rows, positives, both), _finish_lift)
    if ranking.order.size <= EXACT_ROWS:
        return [RankStatistic(ranking, rows.users.group, weights), lift]
    precision = rows.users.sums(linearised_auc.precision_shares(ranking, weights))[:, 0]
    return [
        linearised_auc.auc_statistic(ranking, rows.users, weights),
        SumStatistic(("pr_auc",), np.stack((precision, positives), axis=1), _finish_mean),
        lift,
    ]


def _top_tenth(rows: RankedRows, positives: Floats, both: Floats) -> Floats:
    """By user the positives among the tenth of rows with the highest scores, and among all; [U, 2].

    Ties at the tenth's end count in part. A user with more rows there than a tenth pushes as many others out, who are
    as often positive as the rows near its end: that is taken off, so that the sums are right to first order.
    `positives` and `both` [U] are the weights of each user's positives and of all its rows.
    """
    ranking, positive = rows.ranking, rows.ranking.positive
    reached = np.arange(1.0, positive.size + 1.0) if rows.weights is None else np.cumsum(rows.weights)
    total = float(reached[-1])
    first, tenth, end = np.searchsorted(reached, (0.05 * total, 0.1 * total, 0.15 * total)).tolist()
    last = int(ranking.ends[ranking.group[tenth]]) + 1
    share = np.ones(last) if rows.weights is None else rows.weights[:last].copy()
    begin = last - int(ranking.sizes[ranking.group[tenth]])
    before = float(reached[begin - 1]) if begin else 0.0
    share[begin:] *= (0.1 * total - before) / (float(reached[last - 1]) - before)
    top, top_rows = Users(rows.users.group[:last], rows.users.count).sums(share * positive[:last], share).T
    near = slice(first, end + 1)
    rate = float(np.average(positive[near], weights=None if rows.weights is None else rows.weights[near]))
    return np.stack((top + rate * (0.1 * both - top_rows), positives), axis=1)


def _by_list(rows: RankedRows, at: Sequence[int]) -> list[Statistic]:
    """GAUC and the metrics of lists, each where at least one list defines it."""
    of = rows.lists or rows.users
    lists = RankedLists.from_ranking(rows.ranking, of.group, of.count, rows.weights)
    statistics: list[Statistic] = [_mean_of_lists("gauc", lists.area, lists.weight, rows)]
    for k in at:
        statistics += [_mean_of_lists(name, v, lists.mean_weight, rows) for name, v in lists.metrics(k).items()]
    return statistics


def _mean_of_lists(name: str, values: Floats, weights: Floats, rows: RankedRows) -> Statistic:
    """A mean over lists; one of several users counts, to first order, as often as its rows do."""
    defined = np.isfinite(values)
    sums = np.stack((np.where(defined, values, 0.0) * weights, defined * weights), axis=1)
    if rows.lists is not None:
        shares = sums / np.maximum(np.bincount(rows.lists.group, minlength=rows.lists.count), 1)[:, None]
        sums = rows.users.sums(*shares[rows.lists.group].T)
    return SumStatistic((name,), sums, _finish_mean)


def _regression(rows: TaskRows) -> list[Statistic]:
    labels, weights, of = rows.labels, rows.row_weights, ROW_SUMS["regression"]
    pointwise = rows.users.sums(*of.weighed(labels, rows.scores, rows.weights))
    statistics: list[Statistic] = [SumStatistic(of.names, pointwise, of.finish)]
    counts = concordance(labels, rows.scores, rows.weights)
    if counts.pairs.any():
        statistics.append(
            linearised_auc.pair_statistic("xauc", rows.users.sums(weights * counts.right, weights * counts.pairs))
        )
    lists = rows.lists or rows.users
    within = concordance(labels, rows.scores, rows.weights, lists.group) if rows.grouped else None
    if within is not None and within.pairs.any():
        statistics.append(_grouped_xauc(rows, lists, within))
    return statistics


def _grouped_xauc(rows: TaskRows, lists: Users, within: Concordance) -> Statistic:
    """XAUC within each list, averaged by the weight of the list's rows."""
    weights = rows.row_weights
    right, pairs = lists.sums(weights * within.right, weights * within.pairs).T
    value = np.divide(right, pairs, out=np.zeros(right.size), where=pairs > 0)
    judged = weights * (pairs > 0)[lists.group]
    sums = rows.users.sums(value[lists.group] * judged, judged)
    return SumStatistic(("gxauc",), sums, _finish_mean)


def _finish_lift(totals: Floats) -> Sequence[float]:
    top, actual = totals
    return [ratio(top, 0.1 * actual)]


def _finish_mean(totals: Floats) -> Sequence[float]:
    return [ratio(totals[0], totals[1])]


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
    undefined = {name: each.undefined for name, each in tasks_with.items() if each.undefined}
    return TaskResults(scores, undefined, {name: each.statistics for name, each in tasks_with.items()})


def _estimates(statistic: Statistic, draws: Floats, rows: TaskRows, users: int) -> Scores:
    scores: Scores = {}
    for metric, value, values in zip(statistic.names, statistic(np.ones(users)), draws.T, strict=True):
        if np.isfinite(value):
            best, low, high = float(value), *interval_of(metric, float(value), values, users)
            if isinstance(statistic, CalibrationError):
                best, low, high = statistic.estimate()
            scores[metric] = Estimate(value=best, low=low, high=high, n=rows.labels.size, positives=rows.positives)
    return scores
