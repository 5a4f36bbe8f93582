"""AUC over any number of rows: exact while the sorted keys fit in memory, beyond that between two certain bounds.

A row is 32 bits (its score, and its label in the lowest bit) or, where a score is negative, 64. Beyond `most` rows they
become counts of positives and negatives in fine bins of the score. Of the pairs of two bins the order is known; of the
pairs within a bin it is not, so AUC lies between the two values that they could make of it.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.ranking import area_of, pack_labels, sort_in_place
from pipeline.evaluation.streaming.mergeable import Arrays

MOST_ROWS = 1 << 27
"""Rows whose keys are kept: half a gigabyte."""
_BIN_BITS = 24
_FOLD = 1 << 22
"""Rows that go into the bins at once."""


@dataclass(frozen=True)
class Bounds:
    """AUC lies between `low` and `high`; they are equal where it is exact."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """The middle, in which pairs of one bin count half."""
        return (self.low + self.high) / 2.0


@dataclass
class ScorePairs:
    """Keys of rows not yet in bins, and the positives and all rows of each bin once there are `bins` [2, 2**24]."""

    most: int = MOST_ROWS
    keys: list[NDArray[Any]] = field(default_factory=list)
    bins: NDArray[np.int64] | None = None

    @property
    def waiting(self) -> int:
        """Rows in `keys`."""
        return sum(each.size for each in self.keys)

    def update(self, positive: NDArray[np.bool_], scores: NDArray[np.float32]) -> None:
        """Add rows [n]."""
        if positive.size:
            self.keys.append(pack_labels(positive, scores))
            self._limit()

    def merge(self, other: Self) -> None:
        """Add the rows of another state."""
        self.keys += other.keys
        if other.bins is not None:
            self.bins = other.bins.copy() if self.bins is None else self.bins + other.bins
        self._limit()

    def _limit(self) -> None:
        if self.waiting > (self.most if self.bins is None else min(_FOLD, self.most)):
            self._fold()

    def _fold(self) -> None:
        """Put waiting keys into the bins."""
        if self.bins is None:
            self.bins = np.zeros((2, 1 << _BIN_BITS), dtype=np.int64)
        for keys in self.keys:
            number, positive = _bin_of(keys)
            for row, chosen in ((0, number[positive]), (1, number)):
                places, counts = np.unique(chosen, return_counts=True)
                self.bins[row, places] += counts
        self.keys = []

    def finish(self) -> Bounds:
        """AUC; NaN without one of the classes."""
        if self.bins is None:
            packed = _together(self.keys)
            sort_in_place(packed)
            area = area_of(packed)
            return Bounds(area, area)
        self._fold()
        used = np.flatnonzero(self.bins[1])
        positives, rows = self.bins[0][used].astype(np.float64), self.bins[1][used].astype(np.float64)
        negatives = rows - positives
        pairs = positives.sum() * negatives.sum()
        if pairs == 0.0:
            return Bounds(float("nan"), float("nan"))
        low = float(positives @ (np.cumsum(negatives) - negatives))
        return Bounds(low / pairs, (low + float(positives @ negatives)) / pairs)

    def arrays(self) -> Arrays:
        """See `Mergeable`; of the bins those that hold rows."""
        if self.bins is not None:
            self._fold()
            used = np.flatnonzero(self.bins[1])
            return {"most": np.array(self.most), "places": used, "bins": self.bins[:, used]}
        return {"most": np.array(self.most), "keys": _together(self.keys)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """See `Mergeable`."""
        state = cls(int(arrays["most"]))
        if "bins" in arrays:
            state.bins = np.zeros((2, 1 << _BIN_BITS), dtype=np.int64)
            state.bins[:, arrays["places"]] = arrays["bins"]
        elif arrays["keys"].size:
            state.keys = [arrays["keys"]]
        return state


def _together(keys: list[NDArray[Any]]) -> NDArray[Any]:
    """All keys in one array of the widest form among them."""
    if all(each.dtype == np.uint32 for each in keys):
        return np.concatenate(keys) if keys else np.zeros(0, dtype=np.uint32)
    return np.concatenate([_widened(each) for each in keys])


def _widened(keys: NDArray[Any]) -> NDArray[np.uint64]:
    """The 64 bits that `pack_labels` makes where a score is negative: the sign's bit above, set for the others."""
    return keys if keys.dtype == np.uint64 else keys.astype(np.uint64) | np.uint64(1 << 32)


def _bin_of(keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The bin of each key by its score's highest bits, and whether it is positive."""
    wide = _widened(keys)
    return (wide >> np.uint64(33 - _BIN_BITS)).astype(np.int64), (wide & np.uint64(1)).astype(bool)
