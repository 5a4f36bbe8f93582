"""How much each user moves a metric, so that a part of the rows can be tested against all of them.

The influence of a user is the derivative of the metric to the weight of the user's rows. The variance of a metric, or
of the difference of two on overlapping rows, is the sum of the users' squared influences (infinitesimal jackknife:
Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 22), without drawing anything.

Shape legend: U users, K numbers that a statistic sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.intervals import RankStatistic, Statistic, Summed, Users, onto_scale
from pipeline.evaluation.linearised_auc import auc_statistic
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.task_rows import HEADLINE, TaskRows

_STEP = 1e-6


@dataclass(frozen=True)
class Influence:
    """A metric's value, the same on the scale on which it is nearly normal, and there each user's influence, [U]."""

    value: float
    scaled: float
    by_user: Floats


@dataclass(frozen=True)
class TaskInfluence:
    """The weight of each user's rows of a task, [U], and the influences on its headline and its calibration."""

    weight: Floats
    metrics: dict[str, Influence]


def influences(
    tasks: Mapping[str, TaskRows], statistics: Mapping[str, Sequence[Statistic]]
) -> dict[str, TaskInfluence]:  # fmt: skip
    """Of each task."""
    return {name: task_influence(rows, statistics[name]) for name, rows in tasks.items()}


def task_influence(rows: TaskRows, statistics: Sequence[Statistic]) -> TaskInfluence:
    """Of the statistics of a task's rows; without metrics that the rows do not define, or only at their limit."""
    by_metric: dict[str, Influence] = {}
    for statistic in statistics:
        for metric in (HEADLINE[rows.kind], "calibration"):
            summed = _summed(statistic, rows.users.count) if metric in statistic.names else None
            each = None if summed is None else _influence(summed, metric)
            by_metric |= {} if each is None else {metric: each}
    return TaskInfluence(rows.users.sums(rows.weights)[:, 0], by_metric)


def _summed(statistic: Statistic, users: int) -> Summed | None:
    if isinstance(statistic, RankStatistic):
        return auc_statistic(statistic.ranking, Users(statistic.group, users), statistic.weights)
    return statistic if isinstance(statistic, Summed) else None


def _influence(statistic: Summed, metric: str) -> Influence | None:
    """Through the metric's derivatives to the K totals, by central differences; None where there are none."""
    place = statistic.names.index(metric)
    totals = statistic.sums.sum(axis=0)
    # Twice the size of a total of which parts cancel out.
    steps = _STEP * np.abs(statistic.sums).sum(axis=0)
    points = np.concatenate([totals[None], totals + np.diag(steps), totals - np.diag(steps)])
    values = statistic.of_totals(points)[:, place]
    scaled = onto_scale(metric, values)
    if not np.isfinite(scaled).all():
        return None
    above, below = np.split(scaled[1:], 2)
    slopes = np.divide(above - below, 2.0 * steps, out=np.zeros(steps.size), where=steps > 0.0)
    return Influence(float(values[0]), float(scaled[0]), statistic.sums @ slopes)
