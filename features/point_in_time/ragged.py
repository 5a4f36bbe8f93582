"""Lists of rows, of which NumPy knows nothing: packed values with offsets, or slices of values that rows share.

Histories are slices, because the last events of a key overlap a great deal from row to row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class RaggedSlices:
    """Where the list of each row ends among the values, int64 [rows], and how long it is, int32 or int64 [rows]."""

    ends: NDArray[np.int64]
    lengths: NDArray[np.int32] | NDArray[np.int64]

    @classmethod
    def of(cls, rows: pa.Table | pa.RecordBatch, name: str) -> Self:
        """What `columns` put into rows."""
        return cls(*(rows.column(column).to_numpy() for column in slice_columns(name)))

    def columns(self, name: str) -> dict[str, pa.Array]:
        """Two columns of rows."""
        return dict(zip(slice_columns(name), (pa.array(self.ends), pa.array(self.lengths)), strict=True))

    def indices(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the values the flat lists hold, given `offsets_of` the lengths."""
        return np.repeat(self.ends - offsets[1:], self.lengths) + np.arange(offsets[-1])

    def gather(self, values: pa.Array) -> pa.Array:
        """The lists; one of nothing is null."""
        offsets = offsets_of(self.lengths)
        flat = plain(values.take(pa.array(self.indices(offsets))))
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), flat, mask=pa.array(self.lengths == 0))

    def gather_ids(self, values: NDArray[np.int32]) -> "Ragged":
        """The lists of encoded ids."""
        offsets = offsets_of(self.lengths)
        return Ragged(values.take(self.indices(offsets)), offsets)

    def compact(self) -> tuple[NDArray[np.int64], "RaggedSlices"]:
        """Which values any list holds, in their order, and the slices among these alone."""
        begins = self.ends - self.lengths
        order = np.argsort(begins, kind="stable")
        begins, ends = begins[order], self.ends[order]
        reach = np.maximum.accumulate(ends)
        fresh = np.maximum(begins, np.append(0, reach[:-1]))
        added = np.where(self.lengths[order] > 0, np.maximum(ends - fresh, 0), 0)
        upto = np.cumsum(added)
        indices = np.repeat(ends - upto, added) + np.arange(int(added.sum()))
        moved = np.empty_like(self.ends)
        moved[order] = upto - (reach - ends)
        return indices, RaggedSlices(np.where(self.lengths > 0, moved, 0), self.lengths)


@dataclass(frozen=True)
class Ragged:
    """Lists of ids: row r holds ``values[offsets[r] : offsets[r + 1]]``; `values` int32, `offsets` int64 [rows + 1].

    Example:
        >>> lists = Ragged.packed(np.array([5, 6, 7], np.int32), np.array([2, 0, 1]))
        >>> lists.take(np.array([2, 0])).values.tolist()
        [7, 5, 6]
    """

    values: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def packed(cls, values: NDArray[np.int32], lengths: NDArray[np.integer[Any]]) -> Self:
        """Lists of these lengths, one after the other."""
        return cls(values, offsets_of(lengths))

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Rows without values."""
        return cls(np.zeros(0, dtype=np.int32), np.zeros(rows + 1, dtype=np.int64))

    @classmethod
    def joined(cls, lists: Sequence["Ragged"]) -> Self:
        """The rows of several, one after the other."""
        return cls.packed(np.concatenate([x.values for x in lists]), np.concatenate([x.lengths for x in lists]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How long each list is, int64 [rows]."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, rows: NDArray[np.int64]) -> "Ragged":
        """The lists of these rows."""
        ends = self.offsets[rows + 1]
        return RaggedSlices(ends, ends - self.offsets[rows]).gather_ids(self.values)

    def split(self) -> list[NDArray[np.int32]]:
        """The values of each row."""
        return np.split(self.values, self.offsets[1:-1])

    def to_arrow(self) -> pa.Array:
        """A column of lists; none is null."""
        return pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), pa.array(self.values))


def offsets_of(lengths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Where lists of these lengths begin, and where the last one ends, int64 [rows + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def slice_columns(name: str) -> tuple[str, str]:
    """The columns in which rows hold their slices."""
    return f"{name}/end", f"{name}/length"


def plain(values: pa.Array) -> pa.Array:
    """Values without a dictionary."""
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
