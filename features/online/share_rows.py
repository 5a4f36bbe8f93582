"""What rows of online tables add to a model's first layer: prepared rows, stored small, summed for each candidate.

fp16: rounded to half precision. int8: each row has its own scale, value = scale * byte.

Shape legend: n rows of a table, N candidates, H units of the first layer.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from features.online.compiled import kernels
from features.online.online_table import Arrays, mapped_array

RowForm = Literal["fp32", "fp16", "int8"]
_LARGEST = 127
_LARGEST_KEPT = 4096
"""Candidates of the largest matrix that a thread keeps."""
_ONES = np.ones(1, np.float32)
Floats = NDArray[np.float32]


class ShareRows(NamedTuple):
    """A table's rows [n, H]: float32, float16, or int8 with a `scale` [n] each; that is [1] for the others."""

    values: NDArray[Any]
    scale: Floats = _ONES

    @classmethod
    def stored(cls, shares: Floats, form: RowForm) -> Self:
        """Round rows [n, H].

        >>> ShareRows.stored(np.array([[1.0, -2.0, 0.5]], np.float32), "int8").whole().round(2).tolist()
        [[1.0099999904632568, -2.0, 0.5]]
        """
        if form == "fp32":
            return cls(np.ascontiguousarray(shares))
        if form == "fp16":
            largest = np.finfo(np.float16).max
            return cls(np.clip(shares, -largest, largest).astype(np.float16))
        scale = np.abs(shares).max(axis=1, initial=0.0) / np.float32(_LARGEST)
        step = np.where(scale > 0, scale, np.float32(1))[:, None]
        return cls(np.rint(shares / step).astype(np.int8), scale.astype(np.float32))

    def whole(self) -> Floats:
        """All rows as numbers [n, H]."""
        return self.take(np.arange(len(self.values)))

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """Some rows as numbers."""
        taken: Floats = self.values.take(rows, axis=0).astype(np.float32, copy=False)
        return taken if self.values.dtype != np.int8 else taken * self.scale.take(rows)[:, None]

    @property
    def bytes_a_row(self) -> int:
        """What a row takes."""
        return int(self.values.nbytes + (self.scale.nbytes if len(self.scale) > 1 else 0)) // max(len(self.values), 1)


class ShareTables:
    """The rows of all prepared tables of a model, by the table's name."""

    def __init__(self, tables: Mapping[str, ShareRows]) -> None:
        """Sum rows of these tables, at least one."""
        self._memory = threading.local()
        self.tables = dict(tables)
        self.width = int(next(iter(tables.values())).values.shape[1])
        self._compiled = kernels()

    def sum(self, rows: Mapping[str, NDArray[np.int64]], count: int) -> Floats:
        """Each candidate's sum [N, H]; `rows` of each table, [N], or [1] for all.

        It lies in memory of the thread until that sums again: new pages would cost more than the sum.
        """
        total = self._matrix(count)
        for place, (name, table) in enumerate(self.tables.items()):
            if self._compiled is not None:
                half = table.values.dtype == np.float16
                values = table.values.view(np.uint16) if half else table.values
                kernel = self._compiled.sum_half if half else self._compiled.sum
                kernel(values, table.scale, rows[name], total, place == 0)
            elif place == 0:
                total[:] = table.take(rows[name])
            else:
                total += table.take(rows[name])
        return total

    def _matrix(self, count: int) -> Floats:
        if count > _LARGEST_KEPT:
            return np.empty((count, self.width), np.float32)
        kept: Floats | None = getattr(self._memory, "matrix", None)
        if kept is None or len(kept) < count:
            kept = self._memory.matrix = np.empty((count, self.width), np.float32)
        return kept[:count]

    def save(self, folder: Path) -> None:
        """Write the rows into a new folder."""
        folder.mkdir(parents=True)
        for name, table in self.tables.items():
            np.save(folder / f"{name}.npy", table.values, allow_pickle=False)
            np.save(folder / f"{name}.scale.npy", table.scale, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, names: list[str], arrays: Arrays = mapped_array) -> Self:
        """Open rows whose arrays come from `arrays`, by default mapped into memory.

        Raises:
            DataError: a file is missing or damaged.
        """
        return cls(
            {name: ShareRows(*(arrays(folder / f"{name}{end}.npy") for end in ("", ".scale"))) for name in names}
        )
