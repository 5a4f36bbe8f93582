"""Concordance of predicted and true order: XAUC, the AUC of regression, over all rows or within groups of rows.

Shape legend: n rows, S segments.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError
from pipeline.evaluation.metrics import check
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.ranking import Floats, Values, order_of, score_keys


@dataclass(frozen=True)
class Concordance:
    """For each row, over the other rows with another label: their weight, and that of those ordered rightly.

    Both [n] and without the row's own weight; pairs of equal scores count half as right.
    """

    right: Floats
    pairs: Floats


def concordance(
    labels: Values, scores: Values, weights: Floats | None = None, group: NDArray[np.int64] | None = None
) -> Concordance:
    """Weigh ordered pairs exactly in O(n log n), by one linear pass for each bit of the label's rank.

    With `group` [n] (numbers from 0) only rows of one group make pairs; `weights` [n] weigh rows, None: ones.
    """
    weight = np.ones(labels.size) if weights is None else weights
    within = np.zeros(labels.size, dtype=np.int64) if group is None else group
    label, score = _ranks(labels), _ranks(scores)
    scored = _numbers(within, score)
    both = _numbers(scored, label)
    pairs = _shared(weight, within) - _shared(weight, _numbers(within, label))
    tied = _shared(weight, scored) - _shared(weight, both)
    order = order_of(both.astype(np.uint32))
    wrong = np.empty(labels.size)
    wrong[order] = _inversions(label[order], weight[order], within[order])
    return Concordance(right=pairs - wrong - tied / 2.0, pairs=pairs)


def _ranks(values: Values) -> NDArray[np.int64]:
    """The number of each value among the distinct ones in rising order, [n]."""
    keys = score_keys(values)
    order = order_of(keys)
    ranked = keys[order]
    ranks = np.empty(values.size, dtype=np.int64)
    ranks[order] = np.cumsum(np.append(0, ranked[1:] != ranked[:-1])) if values.size else ranks
    return ranks


def _numbers(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each pair of numbers, pairs in their order: [n]."""
    return numbered(first * (int(second.max(initial=0)) + 1) + second)[1]


def _shared(weights: Floats, number: NDArray[np.int64]) -> Floats:
    """The weight of the rows of the same number, [n]."""
    sums: Floats = np.bincount(number, weights=weights).astype(np.float64)
    return sums[number]


def _inversions(ranks: NDArray[np.int64], weights: Floats, group: NDArray[np.int64]) -> Floats:
    """The weight of the rows of its group that a position is out of order with (a larger before, a smaller after).

    Two values part at their highest differing bit. So, from the highest bit down, keep the positions in segments of
    equal bits above, each in its original order: within a segment every 1 before a 0 is an inversion.
    """
    inversions, place = np.zeros(ranks.size), np.arange(ranks.size)
    values, weight = ranks, weights
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    for bit in range(int(ranks.max(initial=0)).bit_length() - 1, -1, -1):
        one = (values >> bit) & 1
        sizes = np.diff(np.append(starts, ranks.size))
        ones = one * weight
        ones_before = _before(ones, starts, sizes)
        zeros_before = _before(weight - ones, starts, sizes)
        zeros = np.add.reduceat(weight - ones, starts)
        inversions[place] += np.where(one == 1, np.repeat(zeros, sizes) - zeros_before, ones_before)
        # Zeros move to the front of their segment, ones behind them, without a sort.
        one_count = _before(one, starts, sizes)
        zero_count = np.arange(ranks.size) - np.repeat(starts, sizes) - one_count
        zero_rows = sizes - np.add.reduceat(one, starts)
        base = np.repeat(starts, sizes)
        target = base + np.where(one == 1, np.repeat(zero_rows, sizes) + one_count, zero_count)
        values, weight, place = (_moved(each, target) for each in (values, weight, place))
        split = (zero_rows > 0) & (zero_rows < sizes)
        starts = np.sort(np.concatenate((starts, (starts + zero_rows)[split])))
    return inversions


def _before(values: Values, starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Values:
    """The sum of the values before each position in its segment."""
    total = np.cumsum(values) - values
    return total - np.repeat(total[starts], sizes)


def _moved(values: Values, target: NDArray[np.int64]) -> Values:
    moved = np.empty_like(values)
    moved[target] = values
    return moved


def xauc(labels: Values, scores: Values, weights: Floats | None = None, *, name: str = "label") -> float:
    """Share of row pairs with different labels that the scores order rightly, equal scores counting half.

    `weights` [n] weigh rows; a pair weighs the product.

    Source: Zhan et al. 2022, "Deconfounding Duration Bias in Watch-time Prediction", section 5.1.3.

    Raises:
        DataError: all labels are equal, or unusable values.
    """
    check(labels, scores, name)
    counts = concordance(labels, scores, weights)
    weight = np.ones(labels.size) if weights is None else weights
    total = float(np.sum(weight * counts.pairs))
    if total == 0.0:
        message = f"{name}: all {labels.size} labels are {labels[0]}, so no pair of rows can be ordered"
        raise DataError(message)
    return float(np.sum(weight * counts.right)) / total
