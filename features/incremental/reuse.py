"""What a build need not do again: the longest run of partitions, from the first day on, that are as they would be made.

A partition is reused while its stamp and all before it are unchanged, and no attribute of a user or an item in it has
changed. From the first one that differs, because of new, late or corrected rows, everything is built again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow.parquet as pq

from contract.columns import TIME
from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.incremental.partition_store import LastLog, PartitionStore
from features.incremental.partitions import DayFacts, Partition, add_facts, day_facts, partitions, recipe_digest
from features.point_in_time.carry_over import CarryOver
from features.point_in_time.timeline import Span
from features.source.data_files import DataFiles, find_data
from features.source.entities import Entities, Sources
from features.source.event_log import with_end, with_keys
from features.source.filesystems import file_facts
from features.source.query_engine import Backend, read_parquet, save_parquet, scalar, to_arrow
from features.source.read_files import read_files
from features.source.row_types import DAY_MS
from features.source.tables import align, key_of, place_of, prepared, source_files
from features.source.times import event_ms
from features.source.used_columns import raw_columns, used_columns
from features.source.zones import day_begin_ms


@dataclass(frozen=True)
class PartitionWork:
    """The partitions of a log; the first `reused` exist already; `why` the others are not."""

    store: PartitionStore
    partitions: tuple[Partition, ...]
    reused: int
    carry_over: CarryOver | None
    span: Span
    why: str
    log: LastLog

    @property
    def files(self) -> list[Path]:
        """The files of all partitions, in the order of time."""
        return [self.store.path(partition) for partition in self.partitions]

    @property
    def last_days(self) -> list[int]:
        """The last day of each partition."""
        return [partition.last for partition in self.partitions]

    def to_build(self, zone: str) -> list[tuple[int, Path]]:
        """First moment and file of each partition to build."""
        return [(day_begin_ms(p.first, zone), self.store.path(p)) for p in self.partitions[self.reused :]]

    @property
    def days(self) -> tuple[int, int]:
        """Days reused and days to build."""
        reused, built = self.partitions[: self.reused], self.partitions[self.reused :]
        return sum(p.days for p in reused), sum(p.days for p in built)

    def __str__(self) -> str:
        """For the progress line, such as ``28 days reused, 1 built``."""
        reused, built = self.days
        return f"{reused} days reused, {built} built" + (f": {self.why}" if self.why and built else "")


def plan_work(connection: Backend, sources: Sources, config: FeaturesConfig, store: PartitionStore) -> PartitionWork:
    """Find what can be reused, and remove from the store what cannot.

    Raises:
        DataError: late rows that the recipe refuses.
    """
    zone = config.events.time_zone
    past = file_facts(source_files(config.past, "data.past")) if config.past else []
    seed = recipe_digest(config, sources.events, past, store.code_memo)
    before = store.last()
    log = _log(connection, sources, config, seed, before)
    facts = log.days
    plan = partitions(facts, config, seed)
    reused, why = store.ready(plan), _reason(before, log, config)
    if reused and sources.entities:
        changed = _first_change(connection, sources.entities, config, store, _open(connection, store, plan[:reused]))
        if changed is not None:
            why = "attributes of users or items that are in these days have changed"
            reused = sum(day_begin_ms(p.last + 1, zone) <= changed for p in plan[:reused])
    store.keep(plan[:reused])
    for side, entity in sources.entities.items() if config.incremental else ():
        save_parquet(connection, _attributes(entity, config), store.attributes(side))
    first, last = day_begin_ms(plan[0].first, zone), max(day.last_ms for day in facts.values())
    carry_over = None
    if reused:
        built = tuple(store.path(partition) for partition in plan[:reused])
        rows = sum(pq.read_metadata(file).num_rows for file in built)
        carry_over = CarryOver(built, store.carry_over_folder, rows, day_begin_ms(plan[reused - 1].last + 1, zone))
    return PartitionWork(store, plan, reused, carry_over, Span(first, last), why, log)


def _log(connection: Backend, sources: Sources, config: FeaturesConfig, seed: str, before: LastLog | None) -> LastLog:
    """The log by day; where it only gained files since the last build, what is read is these."""
    files = source_files(config.events, "data.events")
    versions = dict(file_facts(files))
    if not config.incremental:
        days = _as_one(connection, sources, config)
    elif before and _goes_on(before, seed, versions, config):
        fresh = [file for file in files if file not in before.files]
        days = before.days
        if fresh:
            days = add_facts(days, day_facts(connection, _fresh_rows(connection, sources, config, fresh), config))
    else:
        days = day_facts(connection, sources.events, config)
    return LastLog(seed=seed, until=config.events.until, files=versions, days=days)


def _goes_on(before: LastLog, seed: str, versions: Mapping[str, str], config: FeaturesConfig) -> bool:
    """Whether the log is what the last build saw and some more files, whose rows can be counted by themselves."""
    same = before.seed == seed and before.until == config.events.until and before.files.items() <= versions.items()
    # What is dropped as a repetition, or joined, may stand in another file.
    joined = config.labels or config.events.served not in {None, config.events.path}
    return same and config.events.duplicates == "keep" and config.events.sql is None and not joined


def _fresh_rows(connection: Backend, sources: Sources, config: FeaturesConfig, files: Sequence[str]) -> ir.Table:
    """The rows of some files of the log, with the columns and types of the whole."""
    data = DataFiles(tuple(files), find_data(config.events.path, "data.events").root)
    unverified = config.events.model_copy(update={"verify": False})
    table = prepared(
        read_files(connection, data, unverified, "data.events", raw_columns(config, config.events)),
        unverified,
        "data.events",
    )
    return align(with_end(with_keys(connection, table, config), config.events), sources.events)


def _as_one(connection: Backend, sources: Sources, config: FeaturesConfig) -> dict[int, DayFacts]:
    """The whole log as one day, for a build that caches nothing."""
    times = sources.events.select(ms=event_ms(sources.events, config))
    whole = times.aggregate(rows=times.count(), first=times["ms"].min(), last=times["ms"].max())
    (facts,) = to_arrow(connection, whole).to_pylist()
    return {facts["first"] // DAY_MS: DayFacts(facts["rows"], 0, facts["last"])}


def _reason(before: LastLog | None, now: LastLog, config: FeaturesConfig) -> str:
    """Why what was built before cannot all be used; empty for a first build and for one that only goes on."""
    if before is None:
        return ""
    if before.seed != now.seed:
        return "the recipe, the columns or this program have changed"
    past_days = [day for day in before.rows if day < max(before.rows)]
    late = sum(max(0, count - before.rows.get(day, 0)) for day, count in now.rows.items() if day < max(before.rows))
    if late and config.events.late == "refuse":
        day = next(d for d, n in now.rows.items() if n > before.rows.get(d, 0))
        message = (
            f"{place_of(config.events)}: {late} rows are late: they belong to {np.datetime64(day, 'D')} or after, and "
            f"the last build went on to {np.datetime64(max(before.rows), 'D')}; leave them out, or set "
            "events.late: rebuild"
        )
        raise DataError(message)
    if late:
        return f"{late} late rows"
    return "days have lost rows" if any(now.rows.get(day, 0) < before.rows[day] for day in past_days) else ""


def _open(connection: Backend, store: PartitionStore, plan: tuple[Partition, ...]) -> ir.Table:
    return read_parquet(connection, [str(store.path(partition)) for partition in plan])


def _attributes(entity: ir.Table, config: FeaturesConfig) -> ir.Table:
    """The columns of an entity table that rows can hold or depend on."""
    tables = (table for table in (config.users, config.items) if table is not None)
    used = used_columns(config) | {table.known_at for table in tables}
    return entity.select([c for c in entity.columns if c in used])


def _first_change(
    connection: Backend, entities: Entities, config: FeaturesConfig, store: PartitionStore, rows: ir.Table
) -> int | None:
    """The time of the first row whose user's or item's attributes are not those it was built with; None: no row's."""
    first = [
        scalar(connection, rows.semi_join(changed.cast({key: rows[key].type()}), key)[TIME].min())
        for key, changed in _changed_keys(connection, entities, config, store)
    ]
    return min((int(ms) for ms in first if ms is not None), default=None)


def _changed_keys(
    connection: Backend, entities: Entities, config: FeaturesConfig, store: PartitionStore
) -> Iterator[tuple[str, ir.Table]]:
    for side, entity in entities.items():
        now, file = _attributes(entity, config), store.attributes(side)
        key = key_of(config, side)
        if not file.is_file():
            yield key, now.select(key)
            continue
        before = read_parquet(connection, [str(file)])
        if _types(before) != _types(now):
            yield key, ibis.union(now.select(key), before.select(key).cast({key: now[key].type()}))
            continue
        yield key, ibis.union(ibis.difference(now, before), ibis.difference(before, now)).select(key)


def _types(table: ir.Table) -> dict[str, str]:
    return {name: str(kind.copy(nullable=True)) for name, kind in table.schema().items()}
