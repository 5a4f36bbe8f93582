"""Exact offline metrics in vectorised NumPy.

All functions take one-dimensional arrays of n rows and return a float. Rows are not weighted unless a parameter says
so. Ties between scores never depend on row order: they count half (AUC, XAUC) or are averaged over (NDCG).
"""

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.ranking import Floats, Ranking, Values, pair_order, score_keys, sort_in_place, tied_pairs

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
    return pair_order(positive, scores)


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
    distinct, group = numbered(user)
    # User, score and label in one number, from the highest bits down: sorted, it needs no gathering.
    packed = group.astype(np.uint64) << np.uint64(33)
    packed |= score_keys(scores).astype(np.uint64) << np.uint64(1)
    packed |= labels == 1
    sort_in_place(packed)
    rows = np.bincount(group, minlength=distinct.size).astype(np.float64)
    begins = np.cumsum(rows) - rows
    odd = np.flatnonzero(packed & np.uint64(1))
    owner = (packed[odd] >> np.uint64(33)).astype(np.int64)
    count = np.bincount(owner, minlength=distinct.size)
    # Among equal scores negatives come first: the place of a positive row counts the rows that are not above it.
    place = np.bincount(owner, weights=odd, minlength=distinct.size)
    not_above = place - count * begins - count * (count - 1) / 2.0
    lasts = np.flatnonzero((packed[1:] ^ np.uint64(1) == packed[:-1]) & (packed[1:] & np.uint64(1)).astype(bool))
    tied = np.bincount(
        (packed[lasts] >> np.uint64(33)).astype(np.int64), weights=tied_pairs(packed, lasts), minlength=distinct.size
    )
    pairs = count * (rows - count)
    return np.divide(not_above - tied / 2.0, pairs, out=np.full(rows.size, np.nan), where=pairs > 0), rows


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


def row_log_loss(labels: Values, scores: Values) -> Floats:
    """Cross-entropy in nats of each row; labels are 0 and 1, scores are probabilities."""
    p = np.clip(scores.astype(np.float64), CLIP, 1.0 - CLIP)
    return -np.log(np.where(labels == 1, p, 1.0 - p))


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
