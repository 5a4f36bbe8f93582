"""Make the splits' files out of partitions: encode each partition, then merge them by place into one random order."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.config import EventsConfig
from features.encoding import Encoder, refuse_by_policy
from features.errors import DataError
from features.fit import Fitted, raw_values
from features.kinds import ROW, TIME
from features.parquet import ROW_GROUP_ROWS, AtomicWriter
from features.plan import Planned
from features.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from features.splits import SPLIT_NAMES
from features.stage import PLACES, SHUFFLE, key_hashes
from features.staged import Staged

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that encode row groups; Arrow and NumPy let go of the interpreter for most of it."""


def assemble(
    staged: Staged,
    planned: list[Planned],
    encoder: Encoder,
    fitted: Fitted,
    keys: EventsConfig,
    scratch: Path,
    made: Path,
) -> None:
    """Write ``train``, ``valid`` and ``test`` Parquet into `made`.

    Raises:
        DataError: a value that a policy refuses, or a label that is not finite.
    """
    schema = _columns(encoder.schema)

    def encoded(file: Path) -> Iterator[pa.Table]:
        return _encoded(file, schema.append(pa.field(ROW, pa.int64())), planned, encoder, fitted, keys)

    with ExitStack() as stack:
        writers = [stack.enter_context(_RowGroups(made / f"{split}.parquet", schema)) for split in SPLIT_NAMES]
        for rows in _in_order(staged, encoded, scratch):
            splits = staged.splits[rows[ROW].to_numpy()]
            for number, writer in enumerate(writers):
                mine = np.flatnonzero(splits == number)
                if len(mine):
                    writer.write(
                        rows.drop_columns([ROW]) if len(mine) == len(rows) else rows.take(mine).drop_columns([ROW])
                    )


def _columns(schema: Schema) -> pa.Schema:
    """One column a feature, labels, weights, key hashes and time."""
    tasks = [task.name for task in schema.tasks]
    return pa.schema(
        [pa.field(spec.name, _arrow_type(spec)) for spec in schema.features]
        + [pa.field(f"{kind}__{task}", pa.float32()) for task in tasks for kind in ("label", "weight")]
        + [pa.field("__user", pa.uint64()), pa.field("__item", pa.uint64()), pa.field(TIME, pa.int64())]
    )


def _in_order(staged: Staged, encoded: Callable[[Path], Iterator[pa.Table]], scratch: Path) -> Iterator[pa.Table]:
    """The encoded rows of all partitions in the order of their places; those of one lie in it already."""
    if len(staged.files) == 1:
        yield from encoded(staged.files[0])
        return
    files = [scratch / f"{file.stem}.arrow" for file in staged.files]
    for source, target in zip(staged.files, files, strict=True):
        _save(encoded(source), target)
    yield from _merged(files, len(staged.splits))


def _save(tables: Iterator[pa.Table], path: Path) -> None:
    """Write what this build reads once more: as it lies in memory, which costs nothing to read back."""
    first = next(tables)
    with pa.ipc.new_file(str(path), first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _encoded(
    source: Path, schema: pa.Schema, planned: list[Planned], encoder: Encoder, fitted: Fitted, keys: EventsConfig
) -> Iterator[pa.Table]:
    """Encode a partition row group by row group, beside the rows' numbers."""

    def encode(group: int) -> pa.Table:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            return _encode_rows(file.read_row_group(group), planned, encoder, fitted, keys).cast(schema)

    groups = range(pq.read_metadata(source).num_row_groups)
    with ThreadPoolExecutor(WORKERS) as workers:
        # A few ahead of the writer, so that memory holds a few row groups and not the file.
        waiting = deque(workers.submit(encode, group) for group in groups[: 2 * WORKERS])
        for group in groups:
            if group + 2 * WORKERS < len(groups):
                waiting.append(workers.submit(encode, group + 2 * WORKERS))
            yield waiting.popleft().result()


def _encode_rows(
    raw: pa.Table, planned: list[Planned], encoder: Encoder, fitted: Fitted, keys: EventsConfig
) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for plan, spec in zip(planned, encoder.schema.features, strict=True):
        values = raw_values(raw, plan, fitted.priors)
        refuse_by_policy(spec, values)
        columns[spec.name] = encode_feature(encoder, spec, values)
    for task in encoder.schema.tasks:
        label, weight = f"label__{task.name}", f"weight__{task.name}"
        columns[label] = raw[label].fill_null(0.0).cast(pa.float32())
        columns[weight] = raw[weight].cast(pa.float32())
        _check_finite(columns, label, weight)
    columns |= {"__user": pa.array(key_hashes(raw, keys.user)), "__item": pa.array(key_hashes(raw, keys.item))}
    return pa.table({**columns, TIME: raw[TIME], ROW: raw[ROW]})


def encode_feature(encoder: Encoder, spec: FeatureSpec, values: pa.Array) -> pa.Array:
    """One encoded column: int32, list of int32 or float32."""
    if isinstance(spec, DenseSpec):
        return pa.array(encoder.dense(spec, values))
    if spec.kind == "id":
        return pa.array(encoder.ids(spec, values))
    lists = encoder.lists(spec, values)
    offsets = np.concatenate([[0], np.cumsum(lists.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(lists.values))


def _check_finite(columns: dict[str, pa.Array], *names: str) -> None:
    for name in names:
        if not np.isfinite(columns[name].to_numpy()).all():
            kind, _, task = name.partition("__")
            message = f"task {task!r} has a {kind} that is not a finite number"
            raise DataError(message)


def _arrow_type(spec: FeatureSpec) -> pa.DataType:
    if isinstance(spec, IdSpec):
        return pa.int32() if spec.kind == "id" else pa.list_(pa.int32())
    return pa.float32()


def _merged(files: list[Path], rows: int) -> Iterator[pa.Table]:
    """All rows in the order of their places, some tens of thousands at a time; the next while one is used."""
    pieces = max(1, rows // ROW_GROUP_ROWS)
    with ExitStack() as stack, ThreadPoolExecutor(1) as reader:
        cursors = [_Cursor(stack.enter_context(pa.ipc.open_file(pa.memory_map(str(file))))) for file in files]
        waiting = reader.submit(_below, cursors, PLACES // pieces)
        for piece in range(2, pieces + 2):
            ready = waiting.result()
            if piece <= pieces:
                waiting = reader.submit(_below, cursors, PLACES * piece // pieces)
            yield ready


def _below(cursors: Iterable["_Cursor"], bound: int) -> pa.Table:
    """The next rows of all partitions up to a place, in order."""
    rows = pa.concat_tables([table for cursor in cursors for table in cursor.below(bound)])
    return rows.combine_chunks().take(np.argsort(places_of(rows[ROW].to_numpy())))


def places_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the random order by row number."""
    return rows * SHUFFLE % PLACES


class _Cursor:
    """Reads a partition in the order of its places."""

    def __init__(self, file: pa.ipc.RecordBatchFileReader) -> None:
        self._file, self._group = file, 0
        self._rest: pa.Table | None = None

    def below(self, bound: int) -> Iterator[pa.Table]:
        """The rows not yet read whose places lie below a bound."""
        while self._rest is not None or self._group < self._file.num_record_batches:
            if self._rest is None:
                self._rest = pa.Table.from_batches([self._file.get_batch(self._group)])
                self._group += 1
            end = int(np.searchsorted(places_of(self._rest[ROW].to_numpy()), bound))
            yield self._rest.slice(0, end)
            if end < len(self._rest):
                self._rest = self._rest.slice(end)
                return
            self._rest = None


class _RowGroups:
    """Writes rows as full row groups, however many come at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = AtomicWriter(path, schema)
        self._waiting: list[pa.Table] = []

    def write(self, rows: pa.Table) -> None:
        """Append rows; they are kept until they fill a row group."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROW_GROUP_ROWS:
            table = pa.concat_tables(self._waiting)
            full = len(table) // ROW_GROUP_ROWS * ROW_GROUP_ROWS
            self._writer.write(table.slice(0, full))
            self._waiting = [table.slice(full)]

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and self._waiting:
            self._writer.write(pa.concat_tables(self._waiting))
        self._writer.__exit__(kind, *rest)
