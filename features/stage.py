"""Run the feature expressions and stage their raw values as Parquet: one file a split, and one a kind of probe."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.aggregates import State, aggregate_states
from features.config import FeaturesConfig, SplitByHash
from features.engine import Backend, record_batches
from features.errors import DataError
from features.hashing import Hashes, hash_array
from features.histories import History, history_states
from features.kinds import EVENT, FIRST_PAIR, ITEM, KIND, NOBODY, ROW, SAMPLED, TIME, USER
from features.parquet import ROW_GROUP_ROWS, AtomicWriter
from features.plan import Planned
from features.splits import SPLIT, SPLIT_NAMES, draw_split, with_split
from features.timeline import Timeline

Progress = Callable[[str], None]
PLACE = "__place"
_SHUFFLE, _MODULUS = 2_654_435_761, 4_294_967_296


def stage(
    connection: Backend,
    timeline: Timeline,
    planned: list[Planned],
    config: FeaturesConfig,
    directory: Path,
    progress: Progress,
) -> dict[str, int]:
    """Write raw values: ``train``, ``valid``, ``test`` Parquet, and one ``probe_KIND`` a kind of probe; returns counts.

    Training rows are in a fixed random order, because batches are read in the order of the file.

    Raises:
        DataError: a split without rows.
    """
    progress("sums over earlier events")
    states = aggregate_states(connection, timeline, config)
    progress("histories")
    histories = history_states(connection, timeline, config)
    progress("rows")
    rows = timeline.table.filter(timeline.table[KIND].isin([EVENT, SAMPLED]))
    rows = with_split(connection, rows, config, timeline.last_ms)
    rows = rows.mutate(**{PLACE: (rows[ROW] * _SHUFFLE) % _MODULUS})
    extra = [*_event_columns(planned, config), TIME, SPLIT, PLACE]
    table = _with_states(rows, states, histories, planned, timeline, extra).order_by(PLACE)
    batches = _with_lists(record_batches(connection, table, ROW_GROUP_ROWS), histories)
    counts = _write_splits(_with_draws(batches, config), directory)
    _check_counts(counts, config)
    for kind, mine in probe_plans(planned, timeline).items():
        probes = timeline.table.filter((timeline.table[KIND] == kind) | (timeline.table[KIND] == NOBODY))
        table = _with_states(probes, states, histories, mine, timeline, [KIND])
        batches = _with_lists(record_batches(connection, table, ROW_GROUP_ROWS), histories)
        _write(batches, probe_file(directory, kind))
    return counts


def probe_file(directory: Path, kind: int) -> Path:
    """Where the raw values of a kind of probe are staged."""
    return directory / f"probe_{kind}.parquet"


def probe_plans(planned: list[Planned], timeline: Timeline) -> dict[int, list[Planned]]:
    """By kind of probe, the features that hang on its keys."""
    owner = timeline.ownership
    plans = {
        FIRST_PAIR + i: [p for p in planned if p.keys == keys and p.cross is None]
        for i, keys in enumerate(timeline.pairs)
    }
    if owner.user is not None:
        plans[USER] = [p for p in planned if p.side == "user"]
    if owner.item is not None:
        plans[ITEM] = [p for p in planned if p.side == "item"]
    return plans


def _with_states(
    rows: ir.Table,
    states: list[State],
    histories: list[History],
    planned: list[Planned],
    timeline: Timeline,
    extra: list[str],
) -> ir.Table:
    """The rows with the raw columns of the planned features, of histories the ends; sums over nothing are 0."""
    names = {plan.name for plan in planned}
    wanted = [column for plan in planned if plan.history is None for column in plan.raw]
    keys = list(timeline.keys)
    keys += [key for key in (timeline.ownership.user, timeline.ownership.item) if key]
    ends = [history.state for history in histories]
    wanted += [column for state in ends if not names.isdisjoint(state.names) for column in state.columns]
    for state in (*states, *ends):
        if not names.isdisjoint(state.names):
            rows = rows.left_join(state.table, list(state.on)).drop([f"{c}_right" for c in state.on])
            filled = {c: rows[c].fill_null(0) for c in state.columns if rows[c].type().is_integer()}
            rows = rows.mutate(**filled) if filled else rows
    return rows.select(list(dict.fromkeys([*wanted, *keys, *extra])))


def _with_lists(batches: Iterator[pa.RecordBatch], histories: list[History]) -> Iterator[pa.RecordBatch]:
    """Put each history's lists in the place of where they end."""
    for batch in batches:
        columns = {name: batch[name] for name in batch.schema.names}
        for history in histories:
            if history.state.columns[0] in columns:
                columns |= history.lists(batch)
                columns = {name: column for name, column in columns.items() if name not in history.state.columns}
        yield pa.RecordBatch.from_pydict(columns)


def _event_columns(planned: list[Planned], config: FeaturesConfig) -> list[str]:
    """Labels, weights, and the columns whose mean smooths a rate."""
    tasks = {task.name for task in config.tasks}
    names = [f"{kind}__{task}" for task in tasks for kind in ("label", "weight")]
    return names + [a.of for plan in planned if (a := plan.aggregate) and a.total and a.of not in tasks]


def _with_draws(batches: Iterator[pa.RecordBatch], config: FeaturesConfig) -> Iterator[pa.RecordBatch]:
    """Draw a random split from the hashes of keys and time if the recipe asks for one."""
    for batch in batches:
        if not isinstance(config.split, SplitByHash):
            yield batch
            continue
        user, item = (key_hashes(batch, key) for key in (config.events.user, config.events.item))
        drawn = draw_split(user, item, hash_array(batch.column(TIME)), config.split, config.seed)
        yield batch.set_column(batch.schema.get_field_index(SPLIT), SPLIT, pa.array(drawn))


def key_hashes(rows: pa.Table | pa.RecordBatch, key: str | None) -> Hashes:
    """The hashes of a key column; without one, rows are told apart by their place in the file's random order."""
    return hash_array(rows.column(key)) if key else rows.column(PLACE).to_numpy().astype(np.uint64)


def _write(batches: Iterator[pa.RecordBatch], path: Path) -> None:
    """Write the batches of a probe file; there is always one, for the probe of no key."""
    first = next(batches)
    with AtomicWriter(path, first.schema, "none") as writer:
        writer.write(first)
        for batch in batches:
            writer.write(batch)


def _write_splits(batches: Iterator[pa.RecordBatch], directory: Path) -> dict[str, int]:
    writers: dict[str, AtomicWriter] = {}
    with contextlib.ExitStack() as stack:
        for batch in batches:
            if not writers:
                for name in SPLIT_NAMES:
                    writers[name] = stack.enter_context(
                        AtomicWriter(directory / f"{name}.parquet", batch.schema, "none")
                    )
            table = pa.Table.from_batches([batch])
            counts = np.bincount(table[SPLIT].to_numpy(), minlength=len(SPLIT_NAMES))
            for number, name in enumerate(SPLIT_NAMES):
                if counts[number]:
                    mine = counts[number] == len(table)
                    writers[name].write(table if mine else table.filter(pc.equal(table[SPLIT], number)))
    return {name: writer.rows for name, writer in writers.items()}


def _check_counts(counts: dict[str, int], config: FeaturesConfig) -> None:
    for name in ("train", "valid"):
        if not counts.get(name):
            message = f"the split leaves no {name} rows ({counts}); change data.split, which is {config.split!r}"
            raise DataError(message)
