"""Run the feature expressions and write raw values: a Parquet file a partition, an Arrow file a kind of probe."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from contract.columns import TIME
from contract.hashing import Hashes, hash_array
from features.feature_config import FeaturesConfig
from features.incremental.raw_rows import (
    PARTITION,
    SHUFFLE_KEY,
    SHUFFLE_MODULUS,
    SHUFFLE_MULTIPLIER,
    PartitionFile,
    write_partitions,
)
from features.point_in_time.aggregates import WindowColumns, compute_windows, zero_for_null
from features.point_in_time.feature_plan import FeaturePlan
from features.point_in_time.histories import History, find_histories
from features.point_in_time.timeline import Timeline
from features.source.parquet_files import ROW_GROUP_ROWS, ahead
from features.source.query_engine import Backend, record_batches, to_arrow
from features.source.row_types import EVENT, FIRST_PAIR, ITEM, KIND, NOBODY, ORDER, ROW, SAMPLED, USER, tile_column

Progress = Callable[[str], None]
PartitionStarts = Sequence[tuple[int, Path]]
"""First moments and files of partitions."""


def compute_rows(
    connection: Backend,
    timeline: Timeline,
    feature_plans: list[FeaturePlan],
    config: FeaturesConfig,
    starts: PartitionStarts,
    directory: Path,
    progress: Progress,
) -> None:
    """Write raw values and what later days need of a row into `starts`, and probes to ``probe_KIND`` in `directory`.

    A partition takes the rows from its first moment on. Rows lie in a fixed random order, because batches are read in
    the order of the file.
    """
    progress("sums over earlier events")
    windows = compute_windows(connection, timeline, config)
    progress("histories")
    histories = find_histories(connection, timeline, config)
    progress("rows")
    rows = timeline.table.filter(timeline.table[KIND].isin([EVENT, SAMPLED]))
    rows = rows.mutate(
        **{SHUFFLE_KEY: (rows[ROW] * SHUFFLE_MULTIPLIER) % SHUFFLE_MODULUS, PARTITION: _partition_of(rows, starts)}
    )
    extra = [*_kept_columns(timeline.table, config), SHUFFLE_KEY, PARTITION]
    table = _with_windows(rows, windows, feature_plans, timeline, extra)
    if starts:
        files = _partition_files(connection, rows, starts)
        batches = ahead(record_batches(connection, table.order_by([PARTITION, SHUFFLE_KEY]), ROW_GROUP_ROWS))
        write_partitions(batches, files, histories, kept=config.incremental)
    for row_type, probe_features in probe_plans(feature_plans, timeline).items():
        probes = timeline.table.filter((timeline.table[KIND] == row_type) | (timeline.table[KIND] == NOBODY))
        table = _with_windows(probes, windows, probe_features, timeline, [KIND, ROW, TIME])
        batches = _with_lists(record_batches(connection, table, ROW_GROUP_ROWS), histories, probe_features)
        _write(batches, probe_file(directory, row_type))


def probe_file(directory: Path, row_type: int) -> Path:
    """Where the raw values of a kind of probe lie, as Arrow's file format has them."""
    return directory / f"probe_{row_type}.arrow"


def probe_plans(feature_plans: list[FeaturePlan], timeline: Timeline) -> dict[int, list[FeaturePlan]]:
    """By kind of probe, the features that hang on its keys."""
    if not timeline.probed:
        return {}
    owner = timeline.ownership
    plans = {
        FIRST_PAIR + i: [p for p in feature_plans if p.keys == keys and p.cross is None]
        for i, keys in enumerate(timeline.pairs)
    }
    if owner.user is not None:
        plans[USER] = [p for p in feature_plans if p.side == "user"]
    if owner.item is not None:
        plans[ITEM] = [p for p in feature_plans if p.side == "item"]
    return plans


def _with_windows(
    rows: ir.Table,
    windows: list[WindowColumns],
    feature_plans: list[FeaturePlan],
    timeline: Timeline,
    extra: list[str],
) -> ir.Table:
    """The rows with the raw columns of the planned features other than histories; sums over nothing are 0."""
    names = {plan.name for plan in feature_plans}
    raw_columns = [column for plan in feature_plans if plan.history is None for column in plan.raw]
    keys = list(timeline.keys)
    keys += [key for key in (timeline.ownership.user, timeline.ownership.item) if key]
    for window in windows:
        if not names.isdisjoint(window.names):
            rows = rows.left_join(window.table, list(window.on)).drop([f"{c}_right" for c in window.on])
            filled = {c: zero_for_null(rows[c]) for c in window.columns if not rows[c].type().is_floating()}
            rows = rows.mutate(**filled) if filled else rows
    return rows.select(list(dict.fromkeys([*raw_columns, *keys, *extra])))


def _with_lists(
    batches: Iterator[pa.RecordBatch], histories: list[History], feature_plans: list[FeaturePlan]
) -> Iterator[pa.RecordBatch]:
    """The lists of the histories that are feature_plans, in the place of row numbers."""
    names = {plan.name for plan in feature_plans}
    used_histories = [history for history in histories if not names.isdisjoint(history.values)]
    for batch in batches:
        columns = {name: batch[name] for name in batch.schema.names if name != ROW}
        for history in used_histories:
            columns |= history.lists(batch[ROW].to_numpy())
        yield pa.RecordBatch.from_pydict(columns)


def key_hashes(rows: pa.Table | pa.RecordBatch, key: str | None) -> Hashes:
    """The hashes of a key column; without one, rows are told apart by their shuffle key."""
    return hash_array(rows.column(key)) if key else rows.column(SHUFFLE_KEY).to_numpy().astype(np.uint64)


def _kept_columns(table: ir.Table, config: FeaturesConfig) -> list[str]:
    """The timeline's columns that splits or, with kept days, later builds need."""
    never = () if config.incremental else (ORDER, tile_column("hour"), tile_column("day"))
    return [column for column in table.columns if column not in never]


def _write(batches: Iterator[pa.RecordBatch], path: Path) -> None:
    """Write the batches of a probe file; there is always one, for the probe of no key."""
    first = next(batches)
    with pa.ipc.new_file(path, first.schema) as writer:
        writer.write(first)
        for batch in batches:
            writer.write(batch)


def _partition_of(rows: ir.Table, starts: PartitionStarts) -> ir.Value:
    """The number of each row's partition among those to build."""
    later = [(rows[TIME] >= begin, number) for number, (begin, _) in reversed(list(enumerate(starts))) if number]
    return ibis.cases(*later, else_=0).cast("int32") if later else ibis.literal(0, "int32")


def _partition_files(connection: Backend, rows: ir.Table, starts: PartitionStarts) -> list[PartitionFile]:
    """The partitions to build with the row numbers that they lie between."""
    ranges = rows.group_by(PARTITION).aggregate(first=rows[ROW].min(), last=rows[ROW].max())
    row_range = {row[PARTITION]: (row["first"], row["last"] + 1) for row in to_arrow(connection, ranges).to_pylist()}
    return [PartitionFile(path, *row_range.get(number, (0, 0))) for number, (_, path) in enumerate(starts)]
