"""Exact offline metrics in vectorised NumPy.

All functions take one-dimensional arrays of n rows and return a float. Rows are not weighted unless a parameter says
so. Ties between scores never depend on row order: they count half (AUC, XAUC) or are averaged over (NDCG).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError

Floats = NDArray[np.float64]
Values = NDArray[Any]
CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1 in logarithms: about one float32 step below 1."""


def check(labels: Values, scores: Values, name: str) -> None:
    """Refuse what no metric is defined on.

    Raises:
        DataError: no rows, different lengths, or a value that is not finite.
    """
    if labels.shape != scores.shape or labels.ndim != 1:
        message = f"{name}: labels have shape {labels.shape} and scores {scores.shape}; both must be [rows]"
        raise DataError(message)
    if labels.size == 0:
        message = f"{name}: no rows to compute a metric on; at least one is needed"
        raise DataError(message)
    for what, values in (("label", labels), ("score", scores)):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            message = f"{name}: {what} {values[bad[0]]} in row {bad[0]} is not a finite number ({bad.size} such rows)"
            raise DataError(message)


def _check_binary(labels: Values, scores: Values, name: str) -> NDArray[np.bool_]:
    """Return the positive rows, or raise DataError where a class is missing or a label is neither 0 nor 1."""
    check(labels, scores, name)
    positive: NDArray[np.bool_] = labels == 1
    other = np.flatnonzero(~positive & (labels != 0))
    if other.size:
        message = f"{name}: label {labels[other[0]]} in row {other[0]} is not binary; allowed are 0 and 1"
        raise DataError(message)
    if positive.all() or not positive.any():
        message = (
            f"{name}: all {labels.size} labels are {int(positive[0])}, but this metric needs rows of both classes; "
            "evaluate on more rows or leave the task out"
        )
        raise DataError(message)
    return positive


def auc(labels: Values, scores: Values, weights: Values | None = None, *, name: str = "label") -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counting half.

    `weights` [n], not negative, weigh rows; a pair weighs the product. Exact, O(n log n).

    Raises:
        DataError: only one class, or unusable values.
    """
    positive = _check_binary(labels, scores, name)
    if weights is not None:
        ranking = Ranking.of(labels, scores)
        return ranking.areas(np.asarray(weights, dtype=np.float64)[ranking.order])[0]
    negatives = np.sort(scores[~positive])
    positives = np.sort(scores[positive])
    below = np.searchsorted(negatives, positives, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(negatives, positives, side="right").sum(dtype=np.int64)
    return float(below + not_above) / 2.0 / (float(negatives.size) * float(positives.size))


@dataclass(frozen=True)
class Ranking:
    """Rows sorted once by falling score, so that many weightings of them can be judged quickly.

    `order` [n] sorts rows; `ends` [G] is the last sorted position of each group of equal scores; `positive` [n] is
    the sorted label as 0.0 or 1.0.
    """

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    positive: Floats

    @classmethod
    def of(cls, labels: Values, scores: Values) -> "Ranking":
        """Sort n rows; labels are 0 and 1."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
        return cls(order=order, ends=ends, positive=labels[order].astype(np.float64))

    def _curve(self, weights: Values) -> tuple[Floats, Floats]:
        """Weight of the positives and of all rows down to the end of each group of ties."""
        positives = np.cumsum(weights * self.positive)[self.ends]
        return positives, np.cumsum(weights)[self.ends]

    def areas(self, weights: Values) -> tuple[float, float]:
        """Weighted AUC (trapezoids over the groups of ties) and weighted average precision; NaN without a class.

        `weights` [n] are in the order of the ranking.
        """
        positives, rows = self._curve(weights)
        negatives = rows - positives
        pairs = positives[-1] * negatives[-1]
        if positives[-1] <= 0:
            return float("nan"), float("nan")
        step = np.diff(positives, prepend=0.0)
        area = float(np.sum(np.diff(negatives, prepend=0.0) * (2.0 * positives - step))) / 2.0
        precision = np.divide(positives, rows, out=np.zeros_like(rows), where=rows > 0)
        return area / pairs if pairs > 0 else float("nan"), float(step @ precision) / positives[-1]

    def roc(self) -> tuple[Floats, Floats]:
        """False and true positive rates [G + 1], from (0, 0) to (1, 1)."""
        positives, rows = self._curve(np.ones(self.order.size))
        negatives = rows - positives
        start = np.zeros(1)
        return np.concatenate((start, negatives / negatives[-1])), np.concatenate((start, positives / positives[-1]))


def pr_auc(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Average precision: the step-wise area under the precision-recall curve.

    Raises:
        DataError: only one class, or unusable values.
    """
    _check_binary(labels, scores, name)
    return Ranking.of(labels, scores).areas(np.ones(labels.size))[1]


def user_auc(labels: Values, scores: Values, user: Values) -> tuple[Floats, Floats]:
    """AUC within each user, and how many rows each user has: both [users], in the order of `np.unique(user)`.

    NaN for users whose rows are all of one class.
    """
    _, group = np.unique(user, return_inverse=True)
    order = np.lexsort((scores, group))
    ranks = _mean_ranks(group[order], scores[order])
    rows = np.bincount(group).astype(np.float64)
    positive = labels[order] == 1
    count = np.bincount(group[order], weights=positive, minlength=rows.size)
    rank_sum = np.bincount(group[order], weights=ranks * positive, minlength=rows.size)
    # Ranks run on over all rows; each user's own start at the number of rows before theirs.
    before = np.cumsum(rows) - rows
    pairs = count * (rows - count)
    wins = rank_sum - count * before - count * (count + 1) / 2.0
    return np.divide(wins, pairs, out=np.full(rows.size, np.nan), where=pairs > 0), rows


def _mean_ranks(group: Values, scores: Values) -> Floats:
    """Ranks 1..n of rows sorted by (group, score), averaged over equal scores of one group."""
    starts = tie_starts(group, scores)
    ends = np.append(starts[1:], group.size)
    return np.repeat((starts + 1 + ends) / 2.0, ends - starts)


def tie_starts(group: Values, scores: Values) -> NDArray[np.int64]:
    """Where runs of equal scores of one group start, in rows sorted by (group, score)."""
    new = np.ones(group.size, dtype=bool)
    new[1:] = (group[1:] != group[:-1]) | (scores[1:] != scores[:-1])
    return np.flatnonzero(new)


def gauc(labels: Values, scores: Values, user: Values, *, name: str = "label") -> float:
    """AUC within each user, averaged with the user's row count over users with both classes.

    Source: Zhou et al. 2018, "Deep Interest Network", section 5.3 (weighted by impressions).

    Raises:
        DataError: no user has rows of both classes, or unusable values.
    """
    _check_binary(labels, scores, name)
    areas, rows = user_auc(labels, scores, user)
    judged = np.isfinite(areas)
    if not judged.any():
        message = f"{name}: none of the {rows.size} users has rows of both classes, so GAUC is not defined"
        raise DataError(message)
    return float(np.average(areas[judged], weights=rows[judged]))


def user_ndcg(labels: Values, scores: Values, user: Values, k: int) -> Floats:
    """NDCG at k of each user's rows ranked by score: [users]; NaN for users with one row or no positive label.

    A single row is ranked rightly by any model. The gain is the label itself and the discount 1 / log2(rank + 1); rows
    of equal score share their gains.
    """
    _, group = np.unique(user, return_inverse=True)
    rows = np.bincount(group)
    first = np.repeat(np.cumsum(rows) - rows, rows)
    position = np.arange(group.size) - first
    discount = np.where(position < k, 1.0 / np.log2(position + 2.0), 0.0)
    order = np.lexsort((-scores, group))
    gained = np.bincount(group[order], weights=shared_gains(group[order], scores[order], labels[order]) * discount)
    ideal_order = np.lexsort((-labels, group))
    ideal = np.bincount(group[ideal_order], weights=labels[ideal_order] * discount)
    found: Floats = np.divide(gained, ideal, out=np.full(rows.size, np.nan), where=(ideal > 0) & (rows > 1))
    return found


def shared_gains(group: Values, scores: Values, labels: Values) -> Floats:
    """Labels of rows sorted by (group, score), averaged over equal scores of one group."""
    starts = tie_starts(group, scores)
    sizes = np.diff(np.append(starts, group.size))
    gains: Floats = np.add.reduceat(labels.astype(np.float64), starts) / sizes
    return np.repeat(gains, sizes)


def ndcg(labels: Values, scores: Values, user: Values, k: int, *, name: str = "label") -> float:
    """Mean NDCG at k over the users with at least two rows and one positive label.

    Raises:
        DataError: no such user, or unusable values.
    """
    check(labels, scores, name)
    gains = user_ndcg(labels, scores, user, k)
    if not np.isfinite(gains).any():
        message = f"{name}: no user has two rows and a label above 0, so NDCG is not defined"
        raise DataError(message)
    return float(np.nanmean(gains))


def row_log_loss(labels: Values, scores: Values) -> Floats:
    """Cross-entropy in nats of each row; scores are probabilities."""
    p = np.clip(scores.astype(np.float64), CLIP, 1.0 - CLIP)
    return -(labels * np.log(p) + (1.0 - labels) * np.log1p(-p))


def log_loss(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Mean cross-entropy in nats."""
    check(labels, scores, name)
    return float(np.mean(row_log_loss(labels, scores)))


def entropy(rate: float) -> float:
    """Entropy in nats of a coin with this rate, which lies strictly between 0 and 1."""
    return float(-(rate * np.log(rate) + (1.0 - rate) * np.log1p(-rate)))


def ne(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Normalised entropy: log loss over that of the labels' own mean; under 1 is better than the mean.

    Source: He et al. 2014, "Practical Lessons from Predicting Clicks on Ads at Facebook", equation 1.

    Raises:
        DataError: only one class, or unusable values.
    """
    _check_binary(labels, scores, name)
    return log_loss(labels, scores, name=name) / entropy(float(np.mean(labels)))


def bins_of(scores: Values, bins: int) -> NDArray[np.int64]:
    """The bin of each row, from cuts at the scores' quantiles: about equal sizes, equal scores never parted."""
    cuts = np.quantile(scores, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    return np.searchsorted(np.unique(cuts), scores, side="left")


def ece(labels: Values, scores: Values, *, bins: int = 20, name: str = "label") -> float:
    """Expected calibration error: mean over rows of |mean score - mean label| of the row's bin.

    Bins hold about equally many rows (rare labels leave equal-width bins empty).
    """
    check(labels, scores, name)
    gap = np.bincount(bins_of(scores, bins), weights=scores.astype(np.float64) - labels)
    return float(np.sum(np.abs(gap)) / labels.size)


def calibration(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Sum of predictions over sum of labels: 1 is right, above 1 predicts too much.

    Raises:
        DataError: the labels sum to 0, or unusable values.
    """
    check(labels, scores, name)
    actual = float(np.sum(labels, dtype=np.float64))
    if actual == 0.0:
        message = f"{name}: all labels sum to 0 over {labels.size} rows, so predicted / actual is not defined"
        raise DataError(message)
    return float(np.sum(scores, dtype=np.float64)) / actual


def rmse(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Root of the mean squared error, in the label's unit."""
    check(labels, scores, name)
    return float(np.sqrt(np.mean(np.square(scores.astype(np.float64) - labels))))


def mae(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Mean absolute error, in the label's unit."""
    check(labels, scores, name)
    return float(np.mean(np.abs(scores.astype(np.float64) - labels)))
