"""Rows of encoded Parquet in memory, in the order that batches take them, and batches as stretches of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, TIME, USER_HASH, label_column, weight_column
from contract.inputs import Batch, Inputs, PartInputs
from contract.schema import Part, Schema

T = TypeVar("T", bound=np.generic)

Order = NDArray[np.int64] | None
"""An order of a row group's rows; None: as they lie in the file, which costs no gathering."""


@dataclass(frozen=True)
class PartRows:
    """A part of rows: matrices [rows, columns], so that to gather a row is one copy, and lists.

    Ids are as the file has them until they are gathered, and 64 bits wide from then on, as models take them.
    """

    ids: NDArray[np.int32] | NDArray[np.int64]
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

    @classmethod
    def gathered(cls, pieces: Sequence["PartRows"], order: Order) -> Self:
        """Pieces one after the other, their rows in an order."""
        lists = [pa.concat_arrays(columns) for columns in zip(*(piece.lists for piece in pieces), strict=True)]
        if order is not None:
            # Arrow copies list by list, four times as fast as NumPy gathers the places of all values.
            lists = [column.take(pa.array(order)) for column in lists]
        ids, dense = [piece.ids for piece in pieces], [piece.dense for piece in pieces]
        return cls(_gathered(ids, order).astype(np.int64), _gathered(dense, order), lists)

    def inputs(self) -> PartInputs:
        """As a batch has them: lists feature by feature."""
        values = [column.flatten().to_numpy() for column in self.lists]
        lengths = [column.value_lengths().to_numpy() for column in self.lists]
        return PartInputs(
            ids=self.ids.astype(np.int64, copy=False),
            list_values=np.concatenate(values, dtype=np.int64) if values else np.zeros(0, dtype=np.int64),
            list_lengths=np.stack(lengths, dtype=np.int64) if lengths else np.zeros((0, len(self.ids)), dtype=np.int64),
            dense=self.dense,
        )


@dataclass(frozen=True)
class Rows:
    """Encoded rows, with labels [rows, tasks] and their weights, keys and, where asked for, times."""

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

    @classmethod
    def gathered(cls, pieces: Sequence["Rows"], order: Order) -> Self:
        """Pieces one after the other, their rows in an order."""
        times = [piece.time for piece in pieces if piece.time is not None]
        return cls(
            PartRows.gathered([piece.request for piece in pieces], order),
            PartRows.gathered([piece.candidate for piece in pieces], order),
            _gathered([piece.labels for piece in pieces], order),
            _gathered([piece.weights for piece in pieces], order),
            _gathered([piece.user for piece in pieces], order),
            _gathered([piece.item for piece in pieces], order),
            _gathered(times, order) if times else None,
        )

    def batch(self) -> Batch:
        """As a batch."""
        inputs = Inputs(self.request.inputs(), self.candidate.inputs())
        return Batch(inputs, self.labels, self.weights, self.user, self.item, self.time)


def _matrix(table: pa.Table, names: Iterable[str], dtype: np.dtype[T]) -> NDArray[T]:
    """Columns side by side [rows, columns]."""
    columns = [table.column(name) for name in names]
    matrix = np.empty((len(table), len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column.to_numpy()
    return matrix


def _gathered(pieces: Sequence[NDArray[T]], order: Order) -> NDArray[T]:
    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return whole if order is None else whole.take(order, axis=0)


def joined(batches: list[Batch]) -> Batch:
    """One batch out of pieces; lists are packed by feature, so each feature's pieces are joined in turn."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        Inputs(
            _joined_parts([b.inputs.request for b in batches]), _joined_parts([b.inputs.candidate for b in batches])
        ),
        np.concatenate([b.labels for b in batches]),
        np.concatenate([b.weights for b in batches]),
        np.concatenate([b.user for b in batches]),
        np.concatenate([b.item for b in batches]),
        np.concatenate(times) if (times := [b.time for b in batches if b.time is not None]) else None,
    )


def _joined_parts(parts: list[PartInputs]) -> PartInputs:
    lists = range(parts[0].list_lengths.shape[0])
    ends = [np.concatenate([[0], np.cumsum(p.list_lengths.sum(axis=1))]) for p in parts]
    values = [p.list_values[e[f] : e[f + 1]] for f in lists for p, e in zip(parts, ends, strict=True)]
    return PartInputs(
        np.concatenate([p.ids for p in parts]),
        np.concatenate(values) if values else np.zeros(0, dtype=np.int64),
        np.concatenate([p.list_lengths for p in parts], axis=1),
        np.concatenate([p.dense for p in parts]),
    )
