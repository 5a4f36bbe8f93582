"""Decoded rows of encoded Parquet in memory, as the file has them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, TIME, USER_HASH, label_column, weight_column
from contract.schema import Part, Schema

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class PartRows:
    """A part of rows as the file has them: matrices [rows, columns], so that to gather a row is one copy, and lists."""

    ids: NDArray[np.int32]
    dense: NDArray[np.float32]
    lists: list[pa.ListArray]

    @classmethod
    def of(cls, table: pa.Table, part: Part) -> Self:
        """A part of a table of encoded columns."""
        return cls(
            ids=_matrix(table, (spec.name for spec in part.ids), np.dtype(np.int32)),
            dense=_matrix(table, (spec.name for spec in part.dense), np.dtype(np.float32)),
            lists=[table.column(spec.name).combine_chunks() for spec in part.lists],
        )

    def slice(self, begin: int, end: int) -> Self:
        """A stretch of rows."""
        lists = [column.slice(begin, end - begin) for column in self.lists]
        return type(self)(self.ids[begin:end], self.dense[begin:end], lists)


@dataclass(frozen=True)
class Rows:
    """Decoded rows, with labels [rows, tasks] and their weights, keys and, where asked for, times."""

    request: PartRows
    candidate: PartRows
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64] | None

    @classmethod
    def of(cls, table: pa.Table, schema: Schema, *, with_time: bool) -> Self:
        """The rows of a table of encoded columns."""
        tasks = [task.name for task in schema.tasks]
        return cls(
            request=PartRows.of(table, schema.request),
            candidate=PartRows.of(table, schema.candidate),
            labels=_matrix(table, map(label_column, tasks), np.dtype(np.float32)),
            weights=_matrix(table, map(weight_column, tasks), np.dtype(np.float32)),
            user=table.column(USER_HASH).to_numpy(),
            item=table.column(ITEM_HASH).to_numpy(),
            time=table.column(TIME).to_numpy() if with_time else None,
        )

    def slice(self, begin: int, end: int) -> Self:
        """A stretch of rows, without copying."""
        return type(self)(
            self.request.slice(begin, end),
            self.candidate.slice(begin, end),
            self.labels[begin:end],
            self.weights[begin:end],
            self.user[begin:end],
            self.item[begin:end],
            None if self.time is None else self.time[begin:end],
        )


def _matrix(table: pa.Table, names: Iterable[str], dtype: np.dtype[T]) -> NDArray[T]:
    """Columns side by side [rows, columns]."""
    columns = [table.column(name).to_numpy() for name in names]
    matrix = np.empty((len(table), len(columns)), dtype=dtype)
    return np.stack(columns, axis=1, out=matrix, casting="unsafe") if columns else matrix
