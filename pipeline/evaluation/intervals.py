"""95 % intervals by a bootstrap over users.

Rows of one user are alike, so rows are not drawn one by one: each replicate draws as many users as there are, with
replacement, and takes all rows of each as often as the user was drawn. All statistics are recomputed on the same
draws, so that two models, or a model and its baselines, can be compared pair by pair.

Shape legend: U users, R replicates, K numbers that a statistic sums.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, stdtrit

from contract.hashing import NULL_HASH
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.ranking import Floats, Ranking, Values

LEVEL = 0.95
REPLICATES = 500
_STREAM = 0x5EED
"""Draws have a stream of random numbers of their own: rows that were made with the same seed are independent of it."""
MOST_UNITS = 8192
"""What is drawn at most: groups of users where there are more."""
_BATCH_BYTES = 1 << 26
"""Memory for the counts of the draws that are summed at once."""
_MOST_KEPT = 1 << 22
"""Draws of more counts than these are made again each time."""


class Statistic(Protocol):
    """Metrics of a fixed set of rows as a function of how often each user counts."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics, in the order of the values."""
        ...

    def __call__(self, counts: Floats) -> Floats:
        """Values of the metrics, for counts [U]; NaN where the draw leaves one undefined."""
        ...

    def many(self, counts: Floats) -> Floats:
        """Values [D, metrics] for the counts of several draws, [D, U]."""
        ...


@runtime_checkable
class Summed(Statistic, Protocol):
    """A statistic that follows from sums by user: `sums` [U, K]."""

    @property
    def sums(self) -> Floats:
        """What is added up, as often as each user counts."""
        ...

    def of_totals(self, totals: Floats) -> Floats:
        """Values [D, metrics] of each draw's totals, [D, K]."""
        ...


@dataclass(frozen=True)
class Users:
    """The users of n rows as indices: `group` int64 [n] in 0..count-1."""

    group: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, user: Values) -> "Users":
        """Number the distinct users of n rows."""
        distinct, group = numbered(user)
        return cls(group=group, count=distinct.size)

    @classmethod
    def of_hashes(cls, user: NDArray[np.uint64]) -> "Users":
        """Number the users of n rows by their hashes; each row without a user stands by itself.

        Example:
            >>> Users.of_hashes(np.array([7, 0, 7, 0], dtype=np.uint64)).count
            3
        """
        missing = user == NULL_HASH
        users = cls.of(user)
        if not missing.any():
            return users
        # The null hash sorts first, so that it is number 0, which the first of those rows keeps.
        group, rows = users.group.copy(), int(missing.sum())
        group[missing] = [0, *range(users.count, users.count + rows - 1)]
        return cls(group=group, count=users.count + rows - 1)

    @classmethod
    def apart(cls, rows: int) -> "Users":
        """Every row by itself, for data without users."""
        return cls(group=np.arange(rows), count=rows)

    def take(self, rows: NDArray[np.bool_]) -> "Users":
        """The same users, on a part of the rows."""
        return Users(group=self.group[rows], count=self.count)

    def sums(self, *columns: Values | None) -> Floats:
        """Sum each column [n] over the rows of each user: [U, K]; None counts rows."""
        sums = [np.bincount(self.group, weights=column, minlength=self.count) for column in columns]
        return np.stack(sums, axis=1).astype(np.float64, copy=False)


@dataclass(frozen=True)
class SumStatistic:
    """Metrics that follow from sums over rows: `sums` [U, K]; `finish` maps the K totals to the metrics."""

    names: tuple[str, ...]
    sums: Floats
    finish: Callable[[Floats], Sequence[float]]

    def __call__(self, counts: Floats) -> Floats:
        """Sum over users as often as each counts."""
        return np.array(self.finish(counts @ self.sums))

    def many(self, counts: Floats) -> Floats:
        """As `__call__` for each draw."""
        return self.of_totals(counts @ self.sums)

    def of_totals(self, totals: Floats) -> Floats:
        """The metrics of each draw's totals, [D, K]."""
        return np.array([self.finish(each) for each in totals])


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

    def many(self, counts: Floats) -> Floats:
        """As `__call__` for each draw."""
        return np.array([self(each) for each in counts])


@dataclass(frozen=True)
class Bootstrap:
    """How often each of U users is drawn, replicate after replicate; the same for the same seed and U.

    More than `units` users are put at random into so many groups, and groups are drawn: that is as fair, and where so
    many things are drawn, the spread of the draws is known to 1 % already.
    """

    users: int
    replicates: int = REPLICATES
    seed: int = 0
    units: int = MOST_UNITS

    @cached_property
    def unit(self) -> NDArray[np.int64] | None:
        """The group of each user, [U]; None where users are drawn themselves."""
        if self.users <= self.units:
            return None
        return np.random.default_rng((_STREAM, self.users)).permutation(self.users) % self.units

    def draws(self) -> Iterator[Floats]:
        """Counts [U] of each replicate; where users are drawn themselves they sum to U."""
        for counts in self._unit_draws():
            yield counts if self.unit is None else counts[self.unit]

    def _unit_draws(self) -> Iterator[Floats]:
        """Counts of the users or groups of users in each replicate."""
        if self.replicates * self._count > _MOST_KEPT:
            yield from _drawn(self._count, self.replicates, self.seed)
        else:
            yield from _kept_draws(self._count, self.replicates, self.seed)

    def run(self, statistics: Sequence[Statistic]) -> list[Floats]:
        """Every statistic on every replicate: one array [R, metrics] each."""
        draws = [np.empty((self.replicates, len(statistic.names))) for statistic in statistics]
        # Sums of all statistics side by side: their draws are one product of matrices.
        parts = [self._by_unit(each.sums) if isinstance(each, Summed) else None for each in statistics]
        ends = np.cumsum([0, *(part.shape[1] for part in parts if part is not None)])
        sums = np.concatenate([part for part in parts if part is not None] or [np.zeros((self._count, 0))], axis=1)
        done = 0
        for counts in self._batches():
            totals = counts @ sums
            pieces = iter([totals[:, begin:end] for begin, end in pairwise(ends.tolist())])
            for values, statistic in zip(draws, statistics, strict=True):
                if isinstance(statistic, Summed):
                    one = statistic.of_totals(next(pieces))
                else:
                    one = statistic.many(counts if self.unit is None else counts[:, self.unit])
                values[done : done + len(counts)] = one
            done += len(counts)
        return draws

    @property
    def _count(self) -> int:
        return min(self.users, self.units)

    def _by_unit(self, sums: Floats) -> Floats:
        """Sums by user [U, K] as sums by what is drawn."""
        if self.unit is None:
            return sums
        return np.stack([np.bincount(self.unit, weights=each, minlength=self._count) for each in sums.T], axis=1)

    def _batches(self) -> Iterator[Floats]:
        """Counts of several replicates, [D, U] or [D, groups], of about `_BATCH_BYTES`."""
        most = max(1, min(self.replicates, _BATCH_BYTES // (8 * max(self._count, 1))))
        if self.replicates * self._count <= _MOST_KEPT:
            kept = _kept_draws(self._count, self.replicates, self.seed)
            yield from (kept[begin : begin + most] for begin in range(0, self.replicates, most))
            return
        draws = _drawn(self._count, self.replicates, self.seed)
        for begin in range(0, self.replicates, most):
            batch = np.empty((min(most, self.replicates - begin), self._count))
            for row, counts in zip(batch, draws, strict=False):
                row[:] = counts
            yield batch


def _drawn(units: int, replicates: int, seed: int) -> Iterator[Floats]:
    """How often each of so many units is drawn, [units], replicate after replicate."""
    generator = np.random.default_rng((_STREAM, seed))
    for _ in range(replicates):
        yield np.bincount(generator.integers(0, units, units), minlength=units).astype(np.float64)


@lru_cache(maxsize=2)
def _kept_draws(units: int, replicates: int, seed: int) -> Floats:
    """As `_drawn`, [R, units], for all that draws the same: a model, its baselines, and slices of many users."""
    draws = np.empty((replicates, units))
    for row, counts in zip(draws, _drawn(units, replicates, seed), strict=True):
        row[:] = counts
    draws.flags.writeable = False
    return draws


def interval(values: Floats, users: int | None = None, level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of replicate values [R], leaving out undefined ones; (NaN, NaN) if all are.

    Of few `users` the draws spread too little, and their middle is that of a normal and not of Student's distribution:
    the share is widened accordingly (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", expanded
    percentile interval).

    Example:
        >>> tuple(round(end, 6) for end in interval(np.arange(101.0)))
        (2.5, 97.5)
    """
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    if users is not None and users > 1:
        tail = float(ndtr(np.sqrt(users / (users - 1.0)) * stdtrit(users - 1.0, tail)))
    low, high = np.quantile(defined, (tail, 1.0 - tail))
    return float(low), float(high)


def standard_error(values: Floats, users: int) -> float:
    """Of an estimate with these replicate values [R], corrected for few users; NaN if all are undefined."""
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return float("nan")
    return float(np.std(defined)) * float(np.sqrt(users / max(users - 1.0, 1.0)))


def around(value: float, error: float, users: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of an estimate with a standard error, by Student's t with users - 1 degrees of freedom."""
    reach = -float(stdtrit(max(users - 1.0, 1.0), (1.0 - level) / 2.0)) * error
    return value - reach, value + reach


def interval_of(metric: str, value: float, values: Floats, users: int) -> tuple[float, float]:
    """The interval of a metric with this value and replicate values [R].

    Student's t around the value, on the scale on which the metric is nearly normal: shares by their logits, positive
    quantities by their logarithms. So it stays within what the metric can be. Where the scale does not hold the value
    or a hundredth of the draws (a share of exactly 1), it is the draws' middle, see `interval`.
    """
    _, back = _scale(metric)
    defined = values[np.isfinite(values)]
    centre, scaled = float(onto_scale(metric, np.array([value]))[0]), onto_scale(metric, defined)
    inside = scaled[np.isfinite(scaled)]
    if not np.isfinite(centre) or inside.size < _MOSTLY * max(defined.size, 1):
        return interval(values, users)
    low, high = sorted(float(back(end)) for end in around(centre, standard_error(inside, users), users))
    # Going there and back rounds.
    return min(low, value), max(high, value)


def onto_scale(metric: str, values: Floats) -> Floats:
    """Values on the scale on which the metric is nearly normal; not finite where the scale does not hold them.

    Example:
        >>> onto_scale("auc", np.array([0.5])).tolist()
        [0.0]
    """
    onto, _ = _scale(metric)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(onto(values), dtype=np.float64)


def _scale(metric: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return _SCALES[_SCALE_OF.get(metric.partition("@")[0], "log")]


_MOSTLY = 0.99
_SCALE_OF = dict.fromkeys(
    ("auc", "pr_auc", "gauc", "xauc", "gxauc", "ndcg", "mrr", "map", "precision", "recall"), "logit"
)
_SCALE_OF["r2"] = "rest"
_SCALES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "log": (np.log, np.exp),
    "logit": (logit, expit),
    "rest": (lambda share: np.log(1.0 - share), lambda log: 1.0 - np.exp(log)),
}
"""How to get onto a scale and back; the other metrics are positive quantities."""
