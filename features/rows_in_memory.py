"""Rows of encoded Parquet in memory, in the order that batches take them, and batches as stretches of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

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
    """A part of rows in the order that batches take them: matrices [rows, columns]; lists as values and offsets."""

    ids: NDArray[np.int32]
    dense: NDArray[np.float32]
    lists: list[tuple[NDArray[np.int32], NDArray[np.int64]]]

    def piece(self, begin: int, end: int) -> PartInputs:
        """A stretch of rows."""
        ends = [offsets[begin : end + 1] for _, offsets in self.lists]
        values = [values[e[0] : e[-1]] for (values, _), e in zip(self.lists, ends, strict=True)]
        return PartInputs(
            ids=self.ids[begin:end].astype(np.int64),
            list_values=np.concatenate(values, dtype=np.int64) if values else np.zeros(0, dtype=np.int64),
            list_lengths=np.stack([np.diff(e) for e in ends]) if ends else np.zeros((0, end - begin), dtype=np.int64),
            dense=self.dense[begin:end],
        )


@dataclass(frozen=True)
class Rows:
    """Row groups in memory, mixed."""

    request: PartRows
    candidate: PartRows
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64] | None

    @classmethod
    def of(cls, table: pa.Table, schema: Schema, order: Order, *, with_time: bool) -> Self:
        """The rows of a table of encoded columns, in an order."""
        tasks = [task.name for task in schema.tasks]
        return cls(
            request=_part_rows(table, schema.request, order),
            candidate=_part_rows(table, schema.candidate, order),
            labels=_matrix(table, map(label_column, tasks), order, np.dtype(np.float32)),
            weights=_matrix(table, map(weight_column, tasks), order, np.dtype(np.float32)),
            user=column_of(table, USER_HASH, order),
            item=column_of(table, ITEM_HASH, order),
            time=column_of(table, TIME, order) if with_time else None,
        )

    def piece(self, begin: int, end: int) -> Batch:
        """A stretch of rows."""
        inputs = Inputs(self.request.piece(begin, end), self.candidate.piece(begin, end))
        time = None if self.time is None else self.time[begin:end]
        labels, weights = self.labels[begin:end], self.weights[begin:end]
        return Batch(inputs, labels, weights, self.user[begin:end], self.item[begin:end], time)


def _matrix(table: pa.Table, names: Iterable[str], order: Order, dtype: np.dtype[T]) -> NDArray[T]:
    """Columns side by side [rows, columns], their rows in an order."""
    columns = [table.column(name) for name in names]
    matrix = np.empty((len(table), len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        matrix[:, place] = column.to_numpy()
    # A row's numbers lie together by now: to gather them column by column took twice as long.
    return matrix if order is None else matrix.take(order, axis=0)


def column_of(table: pa.Table, name: str, order: Order) -> NDArray[Any]:
    """A column's values in an order."""
    values = table.column(name).to_numpy()
    return values if order is None else values.take(order)


def _part_rows(table: pa.Table, part: Part, order: Order) -> PartRows:
    lists = [table.column(spec.name).combine_chunks() for spec in part.lists]
    if order is not None:
        # Arrow copies list by list, four times as fast as NumPy gathers the places of all values.
        lists = [column.take(pa.array(order)) for column in lists]
    return PartRows(
        ids=_matrix(table, (spec.name for spec in part.ids), order, np.dtype(np.int32)),
        dense=_matrix(table, (spec.name for spec in part.dense), order, np.dtype(np.float32)),
        lists=[(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64)) for column in lists],
    )


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
