"""The raw rows of a partition on disk: a Parquet file of rows, and beside it one a history, of the events in its lists.

Rows hold of a list where it ends among the events and how long it is.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.feature_config import FeaturesConfig
from features.point_in_time.histories import History
from features.point_in_time.ragged import RaggedSlices, slice_columns
from features.source.parquet_files import ROW_GROUP_ROWS, AtomicWriter, read_columns
from features.source.row_types import ROW

KEPT_GROUP_ROWS = 8_192
"""Row groups of kept partitions are small, because a sample takes the first of each."""
SHUFFLE_KEY = "__shuffle_key"
SHUFFLE_MULTIPLIER, SHUFFLE_MODULUS = 2_654_435_761, 4_294_967_296
"""Rows lie in the order of a hash of their number (Knuth's multiplicative one): a file's first rows are a sample."""
PARTITION = "__partition"
"""The column with the number of each row's partition, on the way to its file."""


class PartitionFile(NamedTuple):
    """The file of a partition, and the row numbers that its rows lie between."""

    path: Path
    first_row: int
    end_row: int


def history_names(config: FeaturesConfig) -> tuple[tuple[str, ...], ...]:
    """The names of the lists of each history; the first is that of its stretches."""
    return tuple(history.lists for history in config.histories)


@dataclass(frozen=True)
class PartitionRows:
    """The rows in a file, and the names of the lists of each history."""

    path: Path
    histories: tuple[tuple[str, ...], ...]

    @cached_property
    def metadata(self) -> pq.FileMetaData:
        """The footer of the rows' file."""
        return pq.read_metadata(self.path)

    @property
    def schema(self) -> pa.Schema:
        """The columns, lists among them."""
        schema = self.metadata.schema.to_arrow_schema()
        for number, names in enumerate(self.histories):
            events = pq.read_schema(_events_file(self.path, number))
            for name in names:
                schema = schema.append(pa.field(name, pa.list_(events.field(name).type)))
        return schema

    def read(self, names: Collection[str], groups: Sequence[int] | None = None) -> pa.Table:
        """Columns, with the lists cut out; of all row groups or of some.

        Raises:
            OSError: a page is damaged.
        """
        rows = self.read_stored(names, groups)
        lists = {n: self.slices(rows, n).gather(self.events(n)) for n in names if self._history(n) is not None}
        return pa.table({name: lists[name] if name in lists else rows[name] for name in names})

    def read_stored(self, names: Collection[str], groups: Sequence[int] | None = None) -> pa.Table:
        """As `read`, but lists as their stretches."""
        columns: dict[str, None] = {}
        for name in names:
            number = self._history(name)
            columns |= dict.fromkeys([name] if number is None else slice_columns(self.histories[number][0]))
        with pq.ParquetFile(self.path, metadata=self.metadata, page_checksum_verification=True) as file:
            if groups is None:
                return file.read(columns=list(columns))
            return file.read_row_groups(list(groups), columns=list(columns))

    def events(self, name: str) -> pa.Array:
        """The values that the lists of a name are cut from."""
        number = self._history(name)
        return read_columns(_events_file(self.path, number or 0), [name])[name].combine_chunks()

    def slices(self, rows: pa.Table, name: str) -> RaggedSlices:
        """Where the lists of a name lie among these, for rows as they are stored."""
        number = self._history(name)
        return RaggedSlices.of(rows, self.histories[number or 0][0])

    def _history(self, name: str) -> int | None:
        return next((number for number, names in enumerate(self.histories) if name in names), None)


def write_partitions(
    batches: Iterator[pa.RecordBatch], files: Sequence[PartitionFile], histories: Sequence[History], *, kept: bool
) -> None:
    """Write rows in the order of their `PARTITION`, each to its file; one is finished before the next begins.

    What is thrown away after the build is not compressed.
    """
    current = -1
    with contextlib.ExitStack() as stack:
        for batch in batches:
            ends = np.searchsorted(batch[PARTITION].to_numpy(), np.arange(len(files)), side="right")
            for number in np.unique(batch[PARTITION].to_numpy()).tolist():
                if number != current:
                    stack.close()
                    current, file = number, files[number]
                    partition_histories = [history.within(file.first_row, file.end_row) for history in histories]
                    _write_events(file.path, partition_histories, kept=kept)
                    writer: AtomicWriter | None = None
                begin = ends[number - 1] if number else 0
                rows = _with_slices(
                    batch.drop_columns([PARTITION]).slice(begin, ends[number] - begin), partition_histories
                )
                if writer is None:
                    writer = stack.enter_context(_writer(file.path, rows.schema, kept=kept))
                writer.write(rows)


def _writer(path: Path, schema: pa.Schema, *, kept: bool) -> AtomicWriter:
    if kept:
        return AtomicWriter(path, schema, "lz4", KEPT_GROUP_ROWS)
    return AtomicWriter(path, schema, "none", ROW_GROUP_ROWS, statistics=[SHUFFLE_KEY], durable=False)


def _write_events(path: Path, histories: Iterable[History], *, kept: bool) -> None:
    for number, history in enumerate(histories):
        table = pa.table(history.plain_values())
        with AtomicWriter(_events_file(path, number), table.schema, "lz4" if kept else "none", durable=kept) as writer:
            writer.write(table)


def _with_slices(rows: pa.RecordBatch, histories: Iterable[History]) -> pa.RecordBatch:
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    for history in histories:
        columns |= history.slices(rows[ROW].to_numpy()).columns(next(iter(history.values)))
    return pa.RecordBatch.from_pydict(columns)


def _events_file(path: Path, number: int) -> Path:
    """The events of a history in the lists of a partition's rows."""
    return path.with_name(f"{path.stem}.{number}.parquet")
