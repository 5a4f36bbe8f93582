"""95 % intervals by a bootstrap over users.

Rows of one user are alike, so rows are not drawn one by one: each replicate draws as many users as there are, with
replacement, and takes all rows of each as often as the user was drawn. All statistics are recomputed on the same
draws, so that two models, or a model and its baselines, can be compared pair by pair.

Shape legend: U users, R replicates, K numbers that a statistic sums.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.metrics import Floats, Ranking, Values

LEVEL = 0.95
REPLICATES = 500


class Statistic(Protocol):
    """Metrics of a fixed set of rows as a function of how often each user counts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the values."""
        ...

    def __call__(self, counts: Floats) -> Floats:
        """Values of the metrics, for counts [U]; NaN where the draw leaves one undefined."""
        ...


@dataclass(frozen=True)
class Users:
    """The users of n rows as indices: `group` int64 [n] in 0..count-1."""

    group: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, user: Values) -> "Users":
        """Number the distinct users of n rows."""
        distinct, group = np.unique(user, return_inverse=True)
        return cls(group=group, count=distinct.size)

    @classmethod
    def apart(cls, rows: int) -> "Users":
        """Every row by itself, for data without users."""
        return cls(group=np.arange(rows), count=rows)

    def take(self, rows: NDArray[np.bool_]) -> "Users":
        """The same users, on a part of the rows."""
        return Users(group=self.group[rows], count=self.count)

    def sums(self, *columns: Values) -> Floats:
        """Sum each column [n] over the rows of each user: [U, K]."""
        return np.stack([np.bincount(self.group, weights=column, minlength=self.count) for column in columns], axis=1)


@dataclass(frozen=True)
class SumStatistic:
    """Metrics that follow from sums over rows: `sums` [U, K]; `finish` maps the K totals to the metrics."""

    names: tuple[str, ...]
    sums: Floats
    finish: Callable[[Floats], Sequence[float]]

    def __call__(self, counts: Floats) -> Floats:
        """Sum over users as often as each counts."""
        return np.array(self.finish(counts @ self.sums))


@dataclass(frozen=True)
class RankStatistic:
    """AUC and average precision.

    `group` [n] is the user of each row in the order of the ranking, `weights` [n] its sample weight.
    """

    ranking: Ranking
    group: NDArray[np.int64]
    weights: Floats | None = None
    names: tuple[str, ...] = ("auc", "pr_auc")

    def __call__(self, counts: Floats) -> Floats:
        """Weigh each row as often as its user counts."""
        weights = counts[self.group]
        return np.array(self.ranking.areas(weights if self.weights is None else weights * self.weights))


@dataclass(frozen=True)
class Bootstrap:
    """How often each of U users is drawn, replicate after replicate; the same for the same seed and U."""

    users: int
    replicates: int = REPLICATES
    seed: int = 0

    def draws(self) -> Iterator[Floats]:
        """Counts [U] of each replicate; they sum to U."""
        generator = np.random.default_rng(self.seed)
        for _ in range(self.replicates):
            drawn = generator.integers(0, self.users, self.users)
            yield np.bincount(drawn, minlength=self.users).astype(np.float64)

    def run(self, statistics: Sequence[Statistic]) -> list[Floats]:
        """Every statistic on every replicate: one array [R, metrics] each."""
        found = [np.empty((self.replicates, len(statistic.names))) for statistic in statistics]
        for replicate, counts in enumerate(self.draws()):
            for values, statistic in zip(found, statistics, strict=True):
                values[replicate] = statistic(counts)
        return found


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of replicate values [R], leaving out undefined ones; (NaN, NaN) if all are."""
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return float(low), float(high)
