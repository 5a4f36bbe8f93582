"""What each row contributes to a ranking metric, so that resampling users only has to add up sums.

With row weights w near 1, a metric that depends on all rows together is a sum over rows to first order in w - 1. The
error is of the order of 1 / rows, which no longer matters where recomputing the metric for each draw takes long.

All values are in the order of the ranking. Shape legend: n rows, G groups of equal scores.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.intervals import SumStatistic, Users
from pipeline.evaluation.ranking import Floats, Ranking
from pipeline.evaluation.row_sums import ratio


def auc_statistic(ranking: Ranking, users: Users, weights: Floats | None = None) -> SumStatistic:
    """AUC as sums by user; `users` and `weights` [n] are in the order of the ranking."""
    ones = np.ones(ranking.positive.size) if weights is None else weights
    positives, both = users.sums(ranking.positive * ones, ones).T
    right = users.sums(auc_shares(ranking, weights))[:, 0]
    pairs = positives * (both.sum() - positives.sum()) + (both - positives) * positives.sum()
    return pair_statistic("auc", np.stack((right, pairs), axis=1))


def pair_statistic(name: str, sums: Floats) -> SumStatistic:
    """A share of row pairs under weights w, to first order in w - 1: a pair's weight w_i w_j is w_i + w_j - 1.

    `sums` [U, 2] are each user's pairs in the right order and all its pairs.
    """
    whole = sums.sum(axis=0)

    def finish(totals: Floats) -> Sequence[float]:
        right, pairs = 2.0 * totals - whole
        return [ratio(right, pairs)]

    return SumStatistic((name,), sums, finish)


def auc_shares(ranking: Ranking, weights: Floats | None) -> Floats:
    """Weight of the rightly ordered pairs of each row with rows of the other class, ties half: [n].

    AUC under further weights w is, to first order, sum((2 w - 1) right) / sum((2 w - 1) pairs).
    """
    positives, rows = _group_weights(ranking, weights)
    negatives = rows - positives
    positives_above = np.cumsum(positives) - positives / 2.0
    negatives_below = negatives.sum() - np.cumsum(negatives) + negatives / 2.0
    right = np.array(ranking.spread(positives_above), dtype=np.float64)
    np.copyto(right, ranking.spread(negatives_below), where=ranking.positive == 1.0)
    return right if weights is None else right * weights


def precision_shares(ranking: Ranking, weights: Floats | None) -> Floats:
    """Derivative of the summed precision of all positives to each row's further weight, [n].

    The sum is of degree 1 in the weights, so under weights w it is sum(w share) to first order, and average precision
    is that over the weight of the positives.
    """
    positives, rows = _group_weights(ranking, weights)
    above, reached = np.cumsum(positives), np.cumsum(rows)
    # A positive row raises the precision at its own place and below, any row lowers it there.
    gain = _sum_from(positives / reached)
    loss = _sum_from(positives * above / reached**2)
    share = ranking.positive * ranking.spread(above / reached + gain) - ranking.spread(loss)
    return share if weights is None else share * weights


def _group_weights(ranking: Ranking, weights: Floats | None) -> tuple[Floats, Floats]:
    """Weight of the positives and of all rows in each group of ties."""
    if weights is None:
        return ranking.totals(ranking.positive), ranking.sizes.astype(np.float64)
    return ranking.totals(ranking.positive * weights), ranking.totals(weights)


def _sum_from(values: Floats) -> Floats:
    """Sums of each value and all after it."""
    return values[::-1].cumsum()[::-1]
