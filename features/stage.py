"""Run the feature expressions and stage their raw values as Parquet: one file a split, and one for the probes."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
from ibis.backends.duckdb import Backend

from features.aggregates import add_aggregates
from features.config import FeaturesConfig, SplitByHash
from features.errors import DataError
from features.hashing import hash_array
from features.histories import add_histories
from features.parquet import ROW_GROUP_ROWS, AtomicWriter
from features.plan import Planned
from features.sources import record_batches
from features.splits import SPLIT, SPLIT_NAMES, draw_split, split_column
from features.timeline import EVENT, KIND, PAST, ROW, TIME, Timeline

Progress = Callable[[str], None]
_SHUFFLE, _MODULUS = 2_654_435_761, 4_294_967_296


def stage(
    connection: Backend,
    timeline: Timeline,
    planned: list[Planned],
    config: FeaturesConfig,
    directory: Path,
    progress: Progress,
) -> dict[str, int]:
    """Write ``train``, ``valid``, ``test`` and ``probes`` Parquet of raw values; returns their row counts.

    Training rows are in a fixed random order, because batches are read in the order of the file.

    Raises:
        DataError: a split without rows.
    """
    progress("sums over earlier events")
    table = add_aggregates(connection, timeline, config)
    progress("histories")
    table = add_histories(connection, timeline, table, config)
    progress("rows")
    wanted = _columns(table, planned, timeline, config)
    rows = table.filter(table[KIND] != PAST)
    rows = rows.mutate(**{SPLIT: split_column(rows, config)}).order_by([KIND, (rows[ROW] * _SHUFFLE) % _MODULUS])
    batches = record_batches(connection, rows.select(*wanted, KIND, SPLIT), ROW_GROUP_ROWS)
    counts = _write(_with_keys(batches, config), directory)
    _check_counts(counts, config)
    return counts


def _columns(table: ir.Table, planned: list[Planned], timeline: Timeline, config: FeaturesConfig) -> list[str]:
    """Raw columns, keys, labels, weights, time, and the columns whose mean smooths a rate."""
    tasks = {task.name for task in config.tasks}
    names = [column for plan in planned for column in plan.raw]
    names += [f"{kind}__{task.name}" for task in config.tasks for kind in ("label", "weight")]
    names += [a.of for plan in planned if (a := plan.aggregate) and a.total and a.of not in tasks]
    names += [key for keys in timeline.pairs for key in keys]
    names += [key for key in (timeline.ownership.user, timeline.ownership.item) if key]
    return [*dict.fromkeys(names), TIME]


def _with_keys(batches: pa.RecordBatchReader, config: FeaturesConfig) -> Iterator[pa.RecordBatch]:
    """Add the hashes of user and item, and draw a random split from them if the recipe asks for one."""
    for original in batches:
        batch = original
        for name, key in (("__user", config.events.user), ("__item", config.events.item)):
            hashes = hash_array(batch.column(key)) if key else np.arange(len(batch), dtype=np.uint64)
            batch = batch.append_column(name, pa.array(hashes))
        if isinstance(config.split, SplitByHash):
            place = batch.schema.get_field_index(SPLIT)
            batch = batch.set_column(place, SPLIT, pa.array(draw_split(batch, config.split, config.seed)))
        yield batch


def _write(batches: Iterator[pa.RecordBatch], directory: Path) -> dict[str, int]:
    writers: dict[str, AtomicWriter] = {}
    with contextlib.ExitStack() as stack:
        for batch in batches:
            if not writers:
                for name in (*SPLIT_NAMES, "probes"):
                    writers[name] = stack.enter_context(AtomicWriter(directory / f"{name}.parquet", batch.schema))
            table = pa.Table.from_batches([batch])
            is_event = pa.compute.equal(table[KIND], EVENT)
            writers["probes"].write(table.filter(pa.compute.invert(is_event)))
            events = table.filter(is_event)
            for number, name in enumerate(SPLIT_NAMES):
                writers[name].write(events.filter(pa.compute.equal(events[SPLIT], number)))
    return {name: writer.rows for name, writer in writers.items()}


def _check_counts(counts: dict[str, int], config: FeaturesConfig) -> None:
    for name in ("train", "valid"):
        if not counts.get(name):
            message = f"the split leaves no {name} rows ({counts}); change data.split, which is {config.split!r}"
            raise DataError(message)
