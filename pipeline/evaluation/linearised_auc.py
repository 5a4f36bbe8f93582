"""What each row contributes to a ranking metric, so that resampling users only has to add up sums.

With row weights w near 1, a metric that depends on all rows together is a sum over rows to first order in w - 1. The
error is of the order of 1 / rows, which no longer matters where recomputing the metric for each draw takes long.

Shape legend: n rows.
"""

import numpy as np

from pipeline.evaluation.metrics import Floats, Ranking


def auc_shares(ranking: Ranking) -> tuple[Floats, Floats]:
    """Pairs of each row with rows of the other class: those in the right order (ties half), and all; both [n].

    AUC under weights w is, to first order, sum((2 w - 1) right) / sum((2 w - 1) pairs).
    """
    groups = np.diff(ranking.ends, prepend=-1)
    positives = np.diff(np.cumsum(ranking.positive)[ranking.ends], prepend=0.0)
    negatives = groups - positives
    positives_above = np.cumsum(positives) - positives / 2.0
    negatives_below = negatives.sum() - np.cumsum(negatives) + negatives / 2.0
    mine = ranking.positive == 1.0
    right = np.where(mine, np.repeat(negatives_below, groups), np.repeat(positives_above, groups))
    pairs = np.where(mine, negatives.sum(), positives.sum())
    return _by_row(ranking, right), _by_row(ranking, pairs)


def precision_shares(ranking: Ranking) -> Floats:
    """Derivative of the summed precision of all positives to each row's weight, [n].

    The sum is of degree 1 in the weights, so under weights w it is sum(w share) to first order, and average precision
    is that over the weight of the positives.
    """
    groups = np.diff(ranking.ends, prepend=-1)
    above = np.cumsum(ranking.positive)[ranking.ends]
    rows = ranking.ends + 1.0
    positives = np.diff(above, prepend=0.0)
    # A positive row raises the precision at its own place and below, any row lowers it there.
    gain = _sum_from(positives / rows)
    loss = _sum_from(positives * above / rows**2)
    share = ranking.positive * np.repeat(above / rows + gain, groups) - np.repeat(loss, groups)
    return _by_row(ranking, share)


def _sum_from(values: Floats) -> Floats:
    """Sums of each value and all after it."""
    return values[::-1].cumsum()[::-1]


def _by_row(ranking: Ranking, ranked: Floats) -> Floats:
    found = np.empty(ranked.size)
    found[ranking.order] = ranked
    return found
