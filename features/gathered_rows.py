"""The rows of consecutive batches, gathered out of decoded ones straight to where batches take them from."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.inputs import Batch, Inputs, PartInputs, Stretch
from contract.schema import Part, Schema
from features.rows_in_memory import Rows

Order = NDArray[np.int64] | slice
"""Which rows of a window, and in what order; a slice: those that lie side by side, which are copied as they lie."""
_ARRAYS = tuple(
    attrgetter(name)
    for name in (
        "request.ids", "request.dense", "candidate.ids", "candidate.dense", "labels", "weights", "user", "item", "time",
    )
)  # fmt: skip
_LISTS = attrgetter("request.lists"), attrgetter("candidate.lists")
"""What decoded and gathered rows have alike."""


class _GatheredPart:
    """A part of rows: ids are 64 bits wide, as models take them; lists of each window, by the first one's row."""

    def __init__(self, rows: int, part: Part) -> None:
        self.ids = np.empty((rows, len(part.ids)), dtype=np.int64)
        self.dense = np.empty((rows, len(part.dense)), dtype=np.float32)
        self.lists: list[dict[int, pa.ListArray]] = [{} for _ in part.lists]

    def inputs(self, begin: int, end: int) -> PartInputs:
        """A stretch of rows as a batch has them: lists feature by feature."""
        lists = [_lists_between(windows, begin, end) for windows in self.lists]
        values = [column.flatten().to_numpy() for column in lists]
        lengths = [column.value_lengths().to_numpy() for column in lists]
        return PartInputs(
            ids=self.ids[begin:end],
            list_values=np.concatenate(values, dtype=np.int64) if values else np.zeros(0, dtype=np.int64),
            list_lengths=np.stack(lengths, dtype=np.int64) if lengths else np.zeros((0, end - begin), dtype=np.int64),
            dense=self.dense[begin:end],
        )


class GatheredRows:
    """Room for the rows of consecutive batches, which the windows that have them fill, each at a place of its own."""

    def __init__(self, sizes: Sequence[tuple[int, ...]], schema: Schema, *, with_time: bool) -> None:
        """`sizes`: by stretch the rows of its batches."""
        self.sizes, self.rows = sizes, sum(map(sum, sizes))
        self.request, self.candidate = (_GatheredPart(self.rows, part) for part in (schema.request, schema.candidate))
        self.labels, self.weights = (np.empty((self.rows, len(schema.tasks)), dtype=np.float32) for _ in range(2))
        self.user, self.item = (np.empty(self.rows, dtype=np.uint64) for _ in range(2))
        self.time = np.empty(self.rows, dtype=np.int64) if with_time else None

    def stretches(self) -> Iterator[Stretch]:
        """The batches, when all rows have been gathered; nothing is copied but lists."""
        end = 0
        for sizes in self.sizes:
            begin, end = end, end + sum(sizes)
            yield Stretch(self._batch(begin, end), sizes)

    def _batch(self, begin: int, end: int) -> Batch:
        return Batch(
            Inputs(self.request.inputs(begin, end), self.candidate.inputs(begin, end)),
            self.labels[begin:end],
            self.weights[begin:end],
            self.user[begin:end],
            self.item[begin:end],
            None if self.time is None else self.time[begin:end],
        )


class Destination(NamedTuple):
    """Some rows of a window, and which of the gathered rows they become, from `begin` until before `end`."""

    order: Order
    rows: GatheredRows
    begin: int
    end: int


class Dealing:
    """Deals windows' rows out to gathered rows, which it fills one after the other."""

    def __init__(self, gathered: Iterator[GatheredRows]) -> None:
        """`gathered` is asked for the next rows when those before are full."""
        self._coming = gathered
        self._rows: GatheredRows | None = None
        self._filled = 0

    def __call__(self, places: NDArray[np.int64]) -> tuple[list[Destination], list[GatheredRows]]:
        """Where the rows at some places of the next window go, and which gathered rows are complete with them."""
        destinations, complete = list[Destination](), list[GatheredRows]()
        while len(places):
            rows = self._rows or next(self._coming)
            begin, end = self._filled, min(self._filled + len(places), rows.rows)
            order, places = places[: end - begin], places[end - begin :]
            is_run = order[-1] - order[0] == len(order) - 1
            destinations.append(Destination(slice(order[0], order[-1] + 1) if is_run else order, rows, begin, end))
            self._rows, self._filled = rows, end
            if end == rows.rows:
                complete.append(rows)
                self._rows, self._filled = None, 0
        return destinations, complete


def gather(pieces: Sequence[Rows], destinations: Sequence[Destination]) -> None:
    """Write the rows of pieces, which make up a window one after the other, to their destinations."""
    for array in _ARRAYS:
        sources = [array(piece) for piece in pieces]
        if sources[0] is not None:
            _gather_array(sources, [(order, array(rows)[begin:end]) for order, rows, begin, end in destinations])
    for lists in _LISTS:
        for feature, columns in enumerate(zip(*map(lists, pieces), strict=True)):
            column = pa.concat_arrays(columns)
            for order, rows, begin, _ in destinations:
                lists(rows)[feature][begin] = _lists_taken(column, order)


def _gather_array(pieces: Sequence[NDArray[Any]], targets: Sequence[tuple[Order, NDArray[Any]]]) -> None:
    whole: NDArray[Any] | None = None
    for order, target in targets:
        if isinstance(order, slice):
            firsts = accumulate(map(len, pieces), initial=0)
            parts = [
                piece[max(order.start - first, 0) : max(order.stop - first, 0)]
                for first, piece in zip(firsts, pieces, strict=False)
            ]
            np.concatenate(parts, out=target)
            continue
        if whole is None:
            whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if whole.dtype == target.dtype:
            # Places are never out of range; NumPy would take into a copy first, to find that out.
            whole.take(order, axis=0, out=target, mode="clip")
        else:
            target[...] = whole.take(order, axis=0)


def _lists_taken(column: pa.ListArray, order: Order) -> pa.ListArray:
    if isinstance(order, slice):
        return column.slice(order.start, order.stop - order.start)
    # Arrow copies list by list, four times as fast as NumPy gathers the places of all values.
    return column.take(pa.array(order))


def _lists_between(windows: dict[int, pa.ListArray], begin: int, end: int) -> pa.ListArray:
    """Rows from `begin` until before `end`, of lists by the place of the first one."""
    parts = [
        lists.slice(max(begin - first, 0), min(end, first + len(lists)) - max(begin, first))
        for first, lists in sorted(windows.items())
        if first < end and begin < first + len(lists)
    ]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
