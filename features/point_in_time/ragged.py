"""Lists of rows as slices of one column of values, which rows share: last events of a key overlap a great deal."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class RaggedSlices:
    """Where the list of each row ends among the values, int64 [rows], and how long it is, int32 [rows]."""

    ends: NDArray[np.int64]
    lengths: NDArray[np.int32]

    @classmethod
    def of(cls, rows: pa.Table | pa.RecordBatch, name: str) -> Self:
        """What `columns` put into rows."""
        return cls(*(rows.column(column).to_numpy() for column in slice_columns(name)))

    def columns(self, name: str) -> dict[str, pa.Array]:
        """Two columns of rows."""
        return dict(zip(slice_columns(name), (pa.array(self.ends), pa.array(self.lengths)), strict=True))

    @property
    def offsets(self) -> pa.Array:
        """Where each list begins among the flat ones, int32 [rows + 1]."""
        return pa.array(np.append(0, np.cumsum(self.lengths)).astype(np.int32))

    @property
    def indices(self) -> NDArray[np.int64]:
        """Which of the values the flat lists hold."""
        upto = np.cumsum(self.lengths)
        return np.repeat(self.ends - upto, self.lengths) + np.arange(int(self.lengths.sum()))

    def gather(self, values: pa.Array) -> pa.Array:
        """The lists; one of nothing is null."""
        flat = plain(values.take(pa.array(self.indices)))
        return pa.ListArray.from_arrays(self.offsets, flat, mask=pa.array(self.lengths == 0))

    def compact(self) -> tuple[NDArray[np.int64], "RaggedSlices"]:
        """Which values any list holds, in their order, and the slices among these alone."""
        begins = self.ends - self.lengths
        order = np.argsort(begins, kind="stable")
        begins, ends = begins[order], self.ends[order]
        reach = np.maximum.accumulate(ends)
        fresh = np.maximum(begins, np.append(0, reach[:-1]))
        added = np.where(self.lengths[order] > 0, np.maximum(ends - fresh, 0), 0)
        upto = np.cumsum(added)
        kept = np.repeat(ends - upto, added) + np.arange(int(added.sum()))
        moved = np.empty_like(self.ends)
        moved[order] = upto - (reach - ends)
        return kept, RaggedSlices(np.where(self.lengths > 0, moved, 0), self.lengths)


def slice_columns(name: str) -> tuple[str, str]:
    """The columns in which rows hold their slices."""
    return f"{name}/end", f"{name}/length"


def plain(values: pa.Array) -> pa.Array:
    """Values without a dictionary."""
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
