"""Rows in the order of their scores: sorted once, judged many times.

Sorting packed keys is several times faster than NumPy's `argsort`: a score becomes an unsigned number of the same
order, its row (or its label) goes into the bits below, and the numbers are sorted in place. Ties stay exact.

Shape legend: n rows, G groups of equal scores.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.machine_cores import usable_cores

Floats = NDArray[np.float64]
Values = NDArray[Any]
_SIGN = np.uint32(0x8000_0000)
_MOST_PACKED = 2**32
_WALK = 8
"""Steps along a run of equal keys before its end is searched."""
_BLOCK = 1 << 17
"""Keys that are looked at together: they stay in the processor's cache."""
_PARALLEL = 1 << 20
_CORES = min(usable_cores(), 8)


def score_keys(scores: Values) -> NDArray[np.uint32]:
    """Numbers that are ordered, and equal, as the scores are: uint32 [n].

    The bits of float32 with those of negative numbers turned; scores of other types by their ranks.

    Example:
        >>> score_keys(np.array([0.5, -1.0, 0.0, -0.0], dtype=np.float32)).argsort(kind="stable").tolist()
        [1, 2, 3, 0]
    """
    if scores.dtype != np.float32:
        narrow = scores.astype(np.float32)
        if not np.array_equal(narrow, scores):
            return np.unique(scores, return_inverse=True)[1].astype(np.uint32)
        scores = narrow
    # Adding 0 makes one of the two zeros.
    bits = (scores + np.float32(0)).view(np.uint32)
    return bits ^ np.where(bits & _SIGN, np.uint32(0xFFFF_FFFF), _SIGN)


def order_of(keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The stable order of rows by rising key, [n]; as `np.argsort(keys, kind="stable")`.

    Example:
        >>> order_of(np.array([7, 3, 7], dtype=np.uint32)).tolist()
        [1, 0, 2]
    """
    if keys.size >= _MOST_PACKED:
        return np.argsort(keys, kind="stable")
    packed = keys.astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= np.arange(keys.size, dtype=np.uint64)
    sort_in_place(packed)
    packed &= np.uint64(0xFFFF_FFFF)
    return packed.view(np.int64)


def sort_in_place(keys: NDArray[Any], cores: int = _CORES) -> None:
    """Sort numbers [n], halves in parallel where there are many: NumPy sorts without the interpreter's lock."""
    if keys.size < _PARALLEL or cores < 2:  # noqa: PLR2004 - one core has nobody to share with
        keys.sort()
        return
    half = keys.size // 2
    keys.partition(half)
    with ThreadPoolExecutor(2) as workers:
        for done in [workers.submit(sort_in_place, part, cores // 2) for part in (keys[:half], keys[half:])]:
            done.result()


def pack_labels(positive: NDArray[np.bool_], scores: Values) -> NDArray[Any]:
    """The scores' keys with the label in the lowest bit, as 32 bits where no score is negative, else as 64."""
    if scores.dtype == np.float32 and scores.size and scores.min() >= 0.0:
        # The sign's bit is free, and 32 bits sort in two thirds of the time of 64.
        narrow = (scores + np.float32(0)).view(np.uint32) << np.uint32(1)
        narrow |= positive
        return narrow
    wide = score_keys(scores).astype(np.uint64) << np.uint64(1)
    wide |= positive
    return wide


def pair_order(positive: NDArray[np.bool_], scores: Values) -> float:
    """AUC of n rows without weights: the share of (positive, negative) pairs in the right order, ties half.

    Labels ride in the lowest bit of the sorted keys, so that nothing has to be gathered.
    """
    packed = pack_labels(positive, scores)
    sort_in_place(packed)
    return area_of(packed)


def area_of(packed: NDArray[Any]) -> float:
    """AUC from sorted keys whose lowest bit says that the row is positive; NaN without one of the classes."""
    ends = np.linspace(0, packed.size, 1 + (_CORES if packed.size >= _PARALLEL else 1)).astype(np.int64).tolist()
    with ThreadPoolExecutor(len(ends) - 1) as workers:
        parts = list(workers.map(_count_pairs, repeat(packed), ends[:-1], ends[1:]))
    positives, places, tied = (sum(each) for each in zip(*parts, strict=True))
    negatives = packed.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    # Among equal scores negatives come first, so the rows before a positive one are the rows not above it.
    not_above = places - positives * (positives - 1) // 2
    return (not_above - tied / 2.0) / (float(positives) * float(negatives))


def _count_pairs(packed: NDArray[Any], first: int, last: int) -> tuple[int, int, int]:
    """Of a stretch of the keys: positive rows, the sum of their places among all, and tied pairs that begin there."""
    one = packed.dtype.type(1)
    positives, places, tied = 0, 0, 0
    for begin in range(first, last, _BLOCK):
        rows = min(_BLOCK, last - begin)
        block = packed[begin : begin + rows + 1]
        odd = (block & one).astype(bool)
        inside = np.flatnonzero(odd[:rows])
        positives += inside.size
        places += int(inside.sum()) + begin * inside.size
        # A negative row and, next above it, a positive one with the same score.
        lasts = np.flatnonzero(odd[1:] & (block[1:] ^ one == block[:-1])) + begin
        tied += int(np.sum(tied_pairs(packed, lasts)))
    return positives, places, tied


def tied_pairs(packed: NDArray[Any], lasts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs of a negative and a positive row in each group of equal scores, given its last negative row."""
    return _run(packed, lasts, -1) * _run(packed, lasts + 1, 1)


def _run(packed: NDArray[Any], starts: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """How many equal keys there are from each start on, in one direction; most runs are short."""
    lengths = np.ones(starts.size, dtype=np.int64)
    active = np.arange(starts.size)
    for distance in range(1, _WALK):
        place = starts[active] + step * distance
        inside = (place >= 0) & (place < packed.size)
        equal = inside & (packed[np.clip(place, 0, packed.size - 1)] == packed[starts[active]])
        active = active[equal]
        if active.size == 0:
            return lengths
        lengths[active] += 1
    keys = packed[starts[active]]
    if step < 0:
        lengths[active] = starts[active] - np.searchsorted(packed, keys, side="left") + 1
    else:
        lengths[active] = np.searchsorted(packed, keys, side="right") - starts[active]
    return lengths


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
        keys = ~score_keys(scores)
        order = order_of(keys)
        ranked = keys[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
        return cls(order=order, ends=ends, positive=labels[order].astype(np.float64))

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each group, [G]."""
        return np.diff(self.ends, prepend=-1)

    @cached_property
    def group(self) -> NDArray[np.int64]:
        """The group of each sorted row, [n]."""
        return np.repeat(np.arange(self.ends.size), self.sizes)

    def spread(self, values: Values) -> Values:
        """Values of groups [G] as values of sorted rows [n]."""
        return values if values.size == self.order.size else values.take(self.group)

    def totals(self, values: Values) -> Floats:
        """Sums of values of sorted rows [n] by group, [G]."""
        if self.ends.size == self.order.size:
            return values.astype(np.float64)
        return np.add.reduceat(values, np.append(0, self.ends[:-1] + 1)).astype(np.float64)

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

    def bins(self, bins: int, weights: Values | None = None) -> NDArray[np.int64]:
        """The bin of each sorted row [n], of about equal weight; equal scores are never parted, bin 0 is the highest.

        `weights` [n] are in the order of the ranking. A row of weight 2 counts as two rows do.
        """
        reached = (self.ends + 1.0) if weights is None else np.cumsum(weights)[self.ends]
        # A group belongs where its first row lies.
        before = np.append(0.0, reached[:-1])
        number = np.minimum((before * bins / reached[-1] + 1e-9).astype(np.int64), bins - 1)
        return self.spread(np.cumsum(np.diff(number, prepend=number[0]) != 0))
