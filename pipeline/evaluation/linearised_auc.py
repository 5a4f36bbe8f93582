"""What each row contributes to a ranking metric, so that resampling users only has to add up sums.

With row weights w near 1, a metric that depends on all rows together is a sum over rows to first order in w - 1. The
error is of the order of 1 / rows, which no longer matters where recomputing the metric for each draw takes long.

Shape legend: n rows.
"""

import numpy as np

from pipeline.evaluation.metrics import Floats, Ranking


def auc_shares(ranking: Ranking, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of the pairs of each row with rows of the other class: rightly ordered (ties half), and all; both [n].

    AUC under further weights w is, to first order, sum((2 w - 1) right) / sum((2 w - 1) pairs).
    """
    positives, rows = _group_weights(ranking, weights)
    negatives = rows - positives
    sizes = np.diff(ranking.ends, prepend=-1)
    positives_above = np.cumsum(positives) - positives / 2.0
    negatives_below = negatives.sum() - np.cumsum(negatives) + negatives / 2.0
    mine = ranking.positive == 1.0
    right = np.where(mine, np.repeat(negatives_below, sizes), np.repeat(positives_above, sizes))
    pairs = np.where(mine, negatives.sum(), positives.sum())
    return _by_row(ranking, right) * weights, _by_row(ranking, pairs) * weights


def precision_shares(ranking: Ranking, weights: Floats) -> Floats:
    """Derivative of the summed precision of all positives to each row's further weight, [n].

    The sum is of degree 1 in the weights, so under weights w it is sum(w share) to first order, and average precision
    is that over the weight of the positives.
    """
    positives, rows = _group_weights(ranking, weights)
    sizes = np.diff(ranking.ends, prepend=-1)
    above, reached = np.cumsum(positives), np.cumsum(rows)
    # A positive row raises the precision at its own place and below, any row lowers it there.
    gain = _sum_from(positives / reached)
    loss = _sum_from(positives * above / reached**2)
    share = ranking.positive * np.repeat(above / reached + gain, sizes) - np.repeat(loss, sizes)
    return _by_row(ranking, share) * weights


def _group_weights(ranking: Ranking, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of the positives and of all rows in each group of ties."""
    ranked = weights[ranking.order]
    starts = np.append(0, ranking.ends[:-1] + 1)
    return np.add.reduceat(ranked * ranking.positive, starts), np.add.reduceat(ranked, starts)


def _sum_from(values: Floats) -> Floats:
    """Sums of each value and all after it."""
    return values[::-1].cumsum()[::-1]


def _by_row(ranking: Ranking, ranked: Floats) -> Floats:
    found = np.empty(ranked.size)
    found[ranking.order] = ranked
    return found
