"""Sums over rows by unit of resampling: users, or groups of whole users where there are very many.

Shape legend: n rows, U units, K columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.streaming.mergeable import Arrays

MOST_UNITS = 1 << 16
"""More users than this are summed by groups that share the first bits of their hashes; intervals stay clustered."""


@dataclass
class UnitSums:
    """`keys` uint64 [U] in rising order are users' hashes without their last `shift` bits; `sums` is [U, K]."""

    columns: int
    most: int = MOST_UNITS
    shift: int = 0
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    sums: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        if self.sums.size == 0:
            self.sums = np.zeros((0, self.columns))

    def update(self, hashes: NDArray[np.uint64], columns: Sequence[Floats | None]) -> None:
        """Add rows: the mixed hash of each row's user [n], and columns [n]; None counts rows."""
        keys, unit = numbered(hashes >> np.uint64(self.shift))
        added = [np.bincount(unit, weights=column, minlength=keys.size) for column in columns]
        self._add(keys, np.stack(added, axis=1).astype(np.float64))

    def merge(self, other: Self) -> None:
        """Add the rows of another state; the coarser units of the two are kept."""
        self._coarsen(max(self.shift, other.shift))
        keys, unit = numbered(other.keys >> np.uint64(self.shift - other.shift))
        self._add(keys, _summed(other.sums, unit, keys.size))

    def _add(self, keys: NDArray[np.uint64], sums: Floats) -> None:
        both = np.concatenate((self.keys, keys))
        self.keys, unit = numbered(both)
        self.sums = _summed(np.concatenate((self.sums, sums)), unit, self.keys.size)
        while self.keys.size > self.most:
            self._coarsen(self.shift + 1)

    def _coarsen(self, shift: int) -> None:
        if shift == self.shift:
            return
        self.keys, unit = numbered(self.keys >> np.uint64(shift - self.shift))
        self.sums, self.shift = _summed(self.sums, unit, self.keys.size), shift

    def arrays(self) -> Arrays:
        """See `Mergeable`."""
        return {"keys": self.keys, "sums": self.sums, "shape": np.array([self.columns, self.most, self.shift])}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """See `Mergeable`."""
        columns, most, shift = (int(number) for number in arrays["shape"])
        return cls(columns, most, shift, arrays["keys"], arrays["sums"])


def _summed(sums: Floats, unit: NDArray[np.int64], count: int) -> Floats:
    """Rows of sums added up by unit, [count, K]."""
    return np.stack([np.bincount(unit, weights=column, minlength=count) for column in sums.T], axis=1)
