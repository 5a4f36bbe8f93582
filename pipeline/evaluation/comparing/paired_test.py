"""The paired test: every metric of two models or more on the same rows and the same draws of users.

All p-values of a comparison are adjusted together, however many models it has.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from scipy.special import ndtri

from contract.settings import Settings
from pipeline.evaluation.calibration_error import CalibrationError
from pipeline.evaluation.intervals import LEVEL, Bootstrap, Statistic, around, interval, standard_error
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.multiple_tests import holm, smallest_shown, two_sided, weights_of
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.task_metrics import HEADLINE, LOWER_IS_BETTER, metric_names, task_statistics

Reasons = dict[str, dict[str, str]]
"""Task -> metric -> why the rows do not define it."""
K = TypeVar("K", bound=Hashable)
_OF_ONE = "all rows are of one user, and a test needs two at least"


class Difference(Settings):
    """One metric of both models; `difference` is B minus A, with its 95 % interval and two-sided p-value.

    `better` names a model where `p_adjusted` is at most 0.05: over all tasks and metrics of a comparison, equal models
    are told apart in at most one of twenty. `smallest` is the difference that these rows would show in four of five
    such comparisons. Calibration is compared by its distance from 1.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    better: Literal["a", "b", "neither"]
    n: int
    p_adjusted: float
    smallest: float
    headline: bool

    def verdict(self, second: str = "B") -> str:
        """Which model is better, or what difference these rows could have shown; `second` is what B is called."""
        if self.better != "neither":
            return f"{'A' if self.better == 'a' else second} is better"
        if self.smallest == 0.0:
            return "no clear difference: both have the same value in every draw"
        return f"no clear difference; the smallest that these rows could have shown is {self.smallest:.4f}"


@dataclass(frozen=True)
class MeasuredDifference:
    """Both values, their difference, its draws' standard deviation and interval, before any test."""

    metric: str
    headline: bool
    a: float
    b: float
    difference: float
    error: float
    low: float
    high: float
    rows: int
    users: int


def compare_predictions(
    first: Predictions, second: Predictions, config: EvaluateConfig, *, headline_only: bool = False
) -> tuple[dict[str, dict[str, Difference]], Reasons]:
    """Differences of two aligned predictions by task and metric, and why others are not defined.

    `headline_only` leaves out what is not computed together with a task's AUC or RMSE.

    Raises:
        DataError: values that are not finite, or not those of their kind of task.
    """
    measured, undefined = measure_difference(first, second, config, headline_only=headline_only)
    tasks: dict[str, dict[str, Difference]] = {name: {} for name in first.tasks}
    for (task, metric), difference in adjusted_together(measured).items():
        tasks[task][metric] = difference
    return tasks, undefined


def measure_difference(
    first: Predictions, second: Predictions, config: EvaluateConfig, *, headline_only: bool = False
) -> tuple[dict[tuple[str, str], MeasuredDifference], Reasons]:
    """As `compare_predictions`, by (task, metric), without any test."""
    users = first.users()
    bootstrap = Bootstrap(users.count, config.replicates, config.seed)
    others = second.by_task(users)
    measured: dict[tuple[str, str], MeasuredDifference] = {}
    undefined = {}
    for name, rows in first.by_task(users).items():
        one, two = task_statistics(rows, config.at), task_statistics(others[name], config.at)
        reasons = _reasons(one.undefined, two.undefined)
        if reasons:
            undefined[name] = reasons
        if rows.is_of_one:
            # Every draw is the same, which would make any difference a certain one.
            names = metric_names(rows.kind, config.at, grouped=rows.grouped)
            undefined[name] = dict.fromkeys(names, _OF_ONE) | reasons
            continue
        # One model may have a metric that the other's scores, which are no probabilities, do not define.
        theirs = {each.names: each for each in two.statistics}
        pairs = [
            (each, theirs[each.names])
            for each in one.statistics
            if each.names in theirs and (not headline_only or HEADLINE[rows.kind] in each.names)
        ]
        for metric, each in _measure(pairs, bootstrap, rows.labels.size).items():
            measured[name, metric] = replace(each, headline=metric == HEADLINE[rows.kind])
    return measured, undefined


def _reasons(one: Mapping[str, str], two: Mapping[str, str]) -> dict[str, str]:
    """Why metrics are not defined for both models; what holds for one alone says for which."""
    for_one = {metric: f"for A, {why}" for metric, why in one.items() if metric not in two}
    return {metric: why if metric in one else f"for the other, {why}" for metric, why in two.items()} | for_one


def _measure(
    pairs: list[tuple[Statistic, Statistic]], bootstrap: Bootstrap, rows: int
) -> dict[str, MeasuredDifference]:
    """Recompute both models on the same draws, and look at the differences."""
    draws = bootstrap.run([statistic for pair in pairs for statistic in pair])
    whole = np.ones(bootstrap.users)
    measured = {}
    for index, (first, second) in enumerate(pairs):
        values = zip(first.names, first(whole), second(whole), draws[2 * index].T, draws[2 * index + 1].T, strict=True)
        for metric, a, b, draws_a, draws_b in values:
            if np.isfinite(a) and np.isfinite(b):
                measured[metric] = _difference(metric, (float(a), float(b)), (draws_a, draws_b), rows, bootstrap.users)
        if isinstance(first, CalibrationError) and isinstance(second, CalibrationError):
            ends = (first.estimate(), second.estimate())
            measured["ece"] = _errors_of_calibration(measured["ece"], ends, draws[2 * index], draws[2 * index + 1])
    return measured


def _errors_of_calibration(
    plain: MeasuredDifference, estimates: tuple[tuple[float, float, float], ...], draws_a: Floats, draws_b: Floats
) -> MeasuredDifference:
    """The difference of two errors without bias, its interval from both intervals and how alike the draws are.

    Noise alone moves the plain form up, the more the better a model is calibrated, and so hides differences.

    Source: Zou 2007, "Toward Using Confidence Intervals to Compare Correlations", section 2 (dependent estimates).
    """
    (a, low_a, high_a), (b, low_b, high_b) = estimates
    if plain.error == 0.0:
        return replace(plain, a=a, b=b)
    # Draws that all have one value go with nothing.
    varies = min(float(np.std(each[:, 0])) for each in (draws_a, draws_b)) > 0.0
    alike = float(np.corrcoef(draws_a[:, 0], draws_b[:, 0])[0, 1]) if varies else 0.0

    def reach(one: float, other: float) -> float:
        return float(np.sqrt(max(one * one + other * other - 2.0 * alike * one * other, 0.0)))

    low, high = b - a - reach(b - low_b, high_a - a), b - a + reach(high_b - b, a - low_a)
    error = (high - low) / (2.0 * float(ndtri((1.0 + LEVEL) / 2.0)))
    return replace(plain, a=a, b=b, difference=b - a, error=error, low=low, high=high)


def _difference(
    metric: str, whole: tuple[float, float], draws: tuple[Floats, Floats], rows: int, users: int
) -> MeasuredDifference:
    values = [np.append(value, each) for value, each in zip(whole, draws, strict=True)]
    if metric == "calibration":
        # Its best value is 1, so what is tested is the distance from there.
        values = [np.abs(each - 1.0) for each in values]
    difference, deltas = float(values[1][0] - values[0][0]), values[1][1:] - values[0][1:]
    deltas = deltas[np.isfinite(deltas)]
    error = standard_error(deltas, users)
    # The distance from 1 has a corner, around which its differences are not normal.
    low, high = interval(deltas, users) if metric == "calibration" else around(difference, error, users)
    return MeasuredDifference(
        metric=metric,
        headline=False,
        a=whole[0],
        b=whole[1],
        difference=difference,
        error=error,
        low=low,
        high=high,
        rows=rows,
        users=users,
    )


def adjusted_together(measured: Mapping[K, MeasuredDifference]) -> dict[K, Difference]:
    """Test all differences as one family (Holm), the headlines named beforehand with most of the level."""
    weights = weights_of([each.headline for each in measured.values()])
    p = np.array([two_sided(each.difference, each.error, each.users) for each in measured.values()])
    differences = {}
    for place, (adjusted, (key, each)) in enumerate(zip(holm(p, weights), measured.items(), strict=True)):
        winner: Literal["a", "b", "neither"] = "neither"
        if adjusted <= 1.0 - LEVEL and each.difference != 0.0:
            winner = "b" if _b_is_better(each.metric, each.difference) else "a"
        differences[key] = Difference(
            a=each.a,
            b=each.b,
            difference=each.difference,
            low=each.low,
            high=each.high,
            p=float(p[place]),
            better=winner,
            n=each.rows,
            p_adjusted=float(adjusted),
            smallest=smallest_shown(each.error, (1.0 - LEVEL) * float(weights[place])),
            headline=each.headline,
        )
    return differences


def _b_is_better(metric: str, difference: float) -> bool:
    return (difference < 0.0) == (metric in LOWER_IS_BETTER or metric == "calibration")
