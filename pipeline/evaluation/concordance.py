"""Concordance of predicted and true order: XAUC, the AUC of regression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from pipeline.evaluation.metrics import Floats, Values, check


@dataclass(frozen=True)
class Concordance:
    """For each row, over the other rows with another label: how many there are, and how many are ordered rightly.

    Both [n]; pairs of equal scores count half as right.
    """

    right: Floats
    pairs: Floats


def concordance(labels: Values, scores: Values) -> Concordance:
    """Count ordered pairs exactly in O(n log n), by one vectorised pass for each bit of the label's rank."""
    _, label_rank, label_count = np.unique(labels, return_inverse=True, return_counts=True)
    pairs = (labels.size - label_count[label_rank]).astype(np.float64)
    order = np.lexsort((label_rank, scores))
    wrong = np.empty(labels.size)
    wrong[order] = _inversions(label_rank[order])
    _, score_rank, score_count = np.unique(scores, return_inverse=True, return_counts=True)
    _, both, both_count = np.unique(
        score_rank * np.int64(label_count.size) + label_rank, return_inverse=True, return_counts=True
    )
    tied = score_count[score_rank] - both_count[both]
    return Concordance(right=pairs - wrong - tied / 2.0, pairs=pairs)


def _inversions(ranks: NDArray[np.int64]) -> Floats:
    """For each position, how many others it is out of order with (a larger one before it or a smaller one after).

    Two values part at their highest differing bit. So, from the highest bit down, keep the positions grouped by the
    bits above, each group in its original order: within a group every 1 before a 0 is an inversion.
    """
    order = np.arange(ranks.size)
    found = np.zeros(ranks.size)
    for bit in range(int(ranks.max(initial=0)).bit_length() - 1, -1, -1):
        values = ranks[order]
        one = (values >> bit) & 1
        group = values >> (bit + 1)
        starts = np.flatnonzero(np.diff(group, prepend=-1))
        sizes = np.diff(np.append(starts, ranks.size))
        ones_before = np.cumsum(one) - one
        zeros_before = np.arange(ranks.size) - ones_before
        zeros = sizes - np.add.reduceat(one, starts)
        ones_before -= np.repeat(ones_before[starts], sizes)
        zeros_after = np.repeat(zeros + zeros_before[starts], sizes) - zeros_before
        found[order] += np.where(one == 1, zeros_after, ones_before)
        order = order[np.argsort(group * 2 + one, kind="stable")]
    return found


def xauc(labels: Values, scores: Values, *, name: str = "label") -> float:
    """Share of row pairs with different labels that the scores order rightly, equal scores counting half.

    Source: Zhan et al. 2022, "Deconfounding Duration Bias in Watch-time Prediction", section 5.1.3.

    Raises:
        DataError: all labels are equal, or unusable values.
    """
    check(labels, scores, name)
    counts = concordance(labels, scores)
    total = float(np.sum(counts.pairs))
    if total == 0.0:
        message = f"{name}: all {labels.size} labels are {labels[0]}, so no pair of rows can be ordered"
        raise DataError(message)
    return float(np.sum(counts.right)) / total
