"""The same training with several seeds: each metric's mean with its interval, and each seed's value."""

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import stats

from contract.settings import Settings

Metrics = Mapping[str, Mapping[str, float]]


class SeedMean(Settings):
    """A metric's mean over seeds with its 95 % interval (Student's t), and its values seed by seed.

    One seed has no interval: its bounds are not known (None).
    """

    task: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]


class _Key(NamedTuple):
    task: str
    metric: str


def over_seeds(runs: Sequence[Metrics]) -> list[SeedMean]:
    """Join the runs' metrics, by task and metric; one that not all runs have is left out.

    Example:
        >>> mean = over_seeds([{"like": {"auc": 0.7}}, {"like": {"auc": 0.8}}])[0]
        >>> round(mean.mean, 2), mean.low is not None and mean.low < 0.7
        (0.75, True)
    """
    keys = [_Key(task, metric) for task, metrics in runs[0].items() for metric in metrics]
    means = []
    for task, metric in keys:
        values = tuple(run[task][metric] for run in runs if metric in run.get(task, {}))
        if len(values) == len(runs):
            means.append(_mean(task, metric, values))
    return means


def _mean(task: str, metric: str, values: tuple[float, ...]) -> SeedMean:
    middle = statistics.fmean(values)
    if len(values) == 1:
        return SeedMean(task=task, metric=metric, mean=middle, low=None, high=None, values=values)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return SeedMean(task=task, metric=metric, mean=middle, low=middle - half, high=middle + half, values=values)


def seed_table(means: Sequence[SeedMean], seeds: Sequence[int]) -> list[str]:
    """The same as a table in Markdown, line by line."""
    rows = [["task", "metric", "mean", "95 % interval", *(f"seed {seed}" for seed in seeds)]]
    rows.append(["---"] * len(rows[0]))
    for each in means:
        interval = "" if each.low is None or each.high is None else f"{each.low:.4f} to {each.high:.4f}"
        rows.append([each.task, each.metric, f"{each.mean:.4f}", interval, *(f"{value:.4f}" for value in each.values)])
    return [f"| {' | '.join(row)} |" for row in rows]
