"""Read encoded Parquet as batches: columns become NumPy matrices a row group at a time, never a loop over rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import DataError
from features.inputs import Batch, Inputs, PartInputs
from features.schema import Part, Schema

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class _PartRows:
    """A part of a row group: matrices by row; lists as values and offsets a feature, still addressable by row."""

    ids: NDArray[np.int64]
    dense: NDArray[np.float32]
    lists: list[tuple[NDArray[np.int32], NDArray[np.int64]]]

    def take(self, chosen: NDArray[np.int64]) -> PartInputs:
        """The chosen rows in that order."""
        lists = [_take_lists(values, offsets, chosen) for values, offsets in self.lists]
        values = [v for v, _ in lists]
        return PartInputs(
            ids=self.ids[chosen],
            list_values=np.concatenate(values).astype(np.int64) if values else np.zeros(0, dtype=np.int64),
            list_lengths=np.stack([n for _, n in lists]) if lists else np.zeros((0, len(chosen)), dtype=np.int64),
            dense=self.dense[chosen],
        )


@dataclass(frozen=True)
class _Rows:
    """A row group in memory."""

    request: _PartRows
    candidate: _PartRows
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]

    def take(self, chosen: NDArray[np.int64]) -> Batch:
        """The chosen rows in that order."""
        inputs = Inputs(self.request.take(chosen), self.candidate.take(chosen))
        return Batch(inputs, self.labels[chosen], self.weights[chosen], self.user[chosen], self.item[chosen])


class BatchReader:
    """Batches of an encoded Parquet file, in the file's order or, with a seed, in one that changes by epoch.

    With a seed, each epoch permutes the row groups and the rows inside each. Ranks read disjoint row intervals of
    equal length, so that all make the same number of steps.
    """

    def __init__(
        self, path: Path, schema: Schema, batch_size: int, *, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        """Open the file and check that it has every column of the schema.

        Raises:
            DataError: no such file, not Parquet, or a column is missing.
        """
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=True)
        except (OSError, pa.ArrowInvalid) as error:
            message = f"{path} cannot be read as Parquet ({error}); build features with `moerank features CONFIG`"
            raise DataError(message) from error
        self.schema, self.batch_size = schema, batch_size
        self._path, self._seed, self._rank, self._world = path, seed, rank, world
        self._columns = _column_names(schema)
        missing = [name for name in self._columns if name not in self._file.schema_arrow.names]
        if missing:
            message = f"{path} lacks column {missing[0]!r} of the schema ({len(missing)} missing); rebuild the features"
            raise DataError(message)
        self.total_rows: int = self._file.metadata.num_rows

    @property
    def rows(self) -> int:
        """Rows that this rank reads in an epoch."""
        return self.total_rows // self._world

    @property
    def steps(self) -> int:
        """Batches that this rank reads in an epoch, the same on every rank."""
        return -(-self.rows // self.batch_size)

    def epoch(self, number: int = 0, skip: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without its first `skip`; the last one may be short."""
        pending: list[Batch] = []
        held, seen = 0, 0
        for rows, chosen in self._groups(number):
            for start in range(0, len(chosen), self.batch_size):
                piece = chosen[start : start + self.batch_size]
                while len(piece):
                    room = self.batch_size - held
                    pending.append(rows.take(piece[:room]))
                    held += len(piece[:room])
                    piece = piece[room:]
                    if held == self.batch_size:
                        seen += 1
                        if seen > skip:
                            yield _join(pending)
                        pending, held = [], 0
        if pending and seen + 1 > skip:
            yield _join(pending)

    def _groups(self, epoch: int) -> Iterator[tuple[_Rows, NDArray[np.int64]]]:
        """Row groups in the epoch's order, with the rows of each that belong to this rank."""
        sizes = [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        order = np.arange(len(sizes))
        generator = None if self._seed is None else np.random.default_rng([self._seed, epoch])
        if generator is not None:
            order = generator.permutation(order)
        low, high = self._rank * self.rows, (self._rank + 1) * self.rows
        begin = 0
        for group in order:
            within = np.arange(max(low - begin, 0), min(high - begin, sizes[group]))
            mixed = within if generator is None else generator.permutation(sizes[group])[within]
            if len(within):
                yield self._read(int(group)), mixed
            begin += sizes[group]

    def _read(self, group: int) -> _Rows:
        try:
            table = self._file.read_row_group(group, columns=self._columns)
        except OSError as error:
            message = f"{self._path}: row group {group} is damaged ({error}); rebuild the features"
            raise DataError(message) from error
        tasks = [task.name for task in self.schema.tasks]
        return _Rows(
            request=_part_rows(table, self.schema.request),
            candidate=_part_rows(table, self.schema.candidate),
            labels=_matrix(table, [f"label__{task}" for task in tasks], np.dtype(np.float32)),
            weights=_matrix(table, [f"weight__{task}" for task in tasks], np.dtype(np.float32)),
            user=table.column("__user").to_numpy(),
            item=table.column("__item").to_numpy(),
        )


def _column_names(schema: Schema) -> list[str]:
    tasks = [f"{kind}__{task.name}" for task in schema.tasks for kind in ("label", "weight")]
    return [*(spec.name for spec in schema.features), *tasks, "__user", "__item"]


def _matrix(table: pa.Table, names: list[str], kind: np.dtype[T]) -> NDArray[T]:
    """Columns side by side, row-major [rows, columns]."""
    matrix = np.empty((len(table), len(names)), dtype=kind)
    for place, name in enumerate(names):
        matrix[:, place] = table.column(name).to_numpy()
    return matrix


def _part_rows(table: pa.Table, part: Part) -> _PartRows:
    lists = [table.column(spec.name).combine_chunks() for spec in part.lists]
    return _PartRows(
        ids=_matrix(table, [spec.name for spec in part.ids], np.dtype(np.int64)),
        dense=_matrix(table, [spec.name for spec in part.dense], np.dtype(np.float32)),
        lists=[(column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64)) for column in lists],
    )


def _take_lists(
    values: NDArray[np.int32], offsets: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The lists of the chosen rows, packed in that order, and their lengths."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    packed = np.repeat(offsets[chosen] - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
    return values[packed], lengths


def _join(batches: list[Batch]) -> Batch:
    """One batch out of pieces; lists are packed by feature, so each feature's pieces are joined in turn."""
    if len(batches) == 1:
        return batches[0]
    return Batch(
        Inputs(_join_parts([b.inputs.request for b in batches]), _join_parts([b.inputs.candidate for b in batches])),
        np.concatenate([b.labels for b in batches]),
        np.concatenate([b.weights for b in batches]),
        np.concatenate([b.user for b in batches]),
        np.concatenate([b.item for b in batches]),
    )


def _join_parts(parts: list[PartInputs]) -> PartInputs:
    lists = range(parts[0].list_lengths.shape[0])
    ends = [np.concatenate([[0], np.cumsum(p.list_lengths.sum(axis=1))]) for p in parts]
    values = [p.list_values[e[f] : e[f + 1]] for f in lists for p, e in zip(parts, ends, strict=True)]
    return PartInputs(
        np.concatenate([p.ids for p in parts]),
        np.concatenate(values) if values else np.zeros(0, dtype=np.int64),
        np.concatenate([p.list_lengths for p in parts], axis=1),
        np.concatenate([p.dense for p in parts]),
    )
