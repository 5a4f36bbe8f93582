"""The timeline: log, past and probes in one table, over which every feature is one expression.

Probes are rows without labels at the first moment after the log, one for each user, each item and each pair of keys
seen, and one with no keys at all. A feature's value on a probe is what online tables serve: the same expression, as of
the end of the log.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import ibis
import ibis.expr.types as ir

from contract.columns import TIME
from contract.errors import ConfigError
from features.feature_config import FeaturesConfig
from features.point_in_time.carry_over import CarryOver, Rows
from features.point_in_time.labels import with_tasks
from features.point_in_time.negatives import with_negatives
from features.source.column_types import check_columns
from features.source.entities import Sources, known_by, with_attributes
from features.source.ownership import Ownership, find_ownership
from features.source.query_engine import Backend, materialise, named, numbered, scalar
from features.source.row_types import (
    EVENT,
    FIRST_PAIR,
    ITEM,
    KIND,
    NOBODY,
    OBSERVED,
    ORDER,
    PAST,
    ROW,
    USER,
    tile_column,
)
from features.source.tables import align, read_table, with_lists
from features.source.times import event_ms
from features.source.used_columns import raw_columns, used_columns
from features.source.zones import day_begin_ms, day_number, day_of, hour_of


@dataclass(frozen=True)
class Span:
    """The times of the log's first and last events, or for the first any other moment of its day."""

    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Timeline:
    """The table with what is known of it; `pairs[i]` are the keys of probe kind ``FIRST_PAIR + i``.

    `keys` are all columns whose hashes a request must be able to tell: of pairs and of crosses. `last_ms` is the time
    of the log's last event, `cutoff_ms` the first moment of the day after it. With `carry_over`, the table has only the
    events after it. Without `probed`, there are no probes but that of no key, and no online tables can be made.
    """

    table: ir.Table
    ownership: Ownership
    pairs: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    last_ms: int
    cutoff_ms: int
    carry_over: CarryOver | None = None
    probed: bool = True


def build_timeline(
    connection: Backend,
    config: FeaturesConfig,
    sources: Sources,
    span: Span,
    scratch: Path,
    carry_over: CarryOver | None,
    *,
    probed: bool = True,
) -> Timeline:
    """Join log, past and attributes, put the probes beside it, unless it is not `probed`, and add labels and weights.

    `scratch` is a directory for what must go through a file.

    Raises:
        DataError: a source that cannot be used.
        ConfigError: a column or expression that does not exist.
    """
    events, entities = sources.events, sources.entities
    columns = {side: tuple(table.columns) for side, table in entities.items()}
    added = (OBSERVED,) if config.negatives else ()
    ownership = find_ownership(config, (*events.columns, *added), columns.get("user", ()), columns.get("item", ()))
    _check_features(config, ownership, events, entities)
    log = with_negatives(connection, _log(connection, config, events, span, carry_over), config, scratch)
    pairs = pair_keys(config, ownership)
    whole = with_attributes(log, entities, config)
    used = used_columns(config)
    joined = whole.select([c for c in whole.columns if c in used])
    first = carry_over.rows if carry_over else 0
    events = numbered(connection, "events", joined, ROW, _row_order(config), first)
    zone, last = config.events.time_zone, span.last_ms
    cutoff = day_begin_ms(day_number(last, zone) + 1, zone)
    seen = LoggedRows(connection, events.drop(ROW), carry_over)
    probe_rows = _probes(seen, known_by(entities, config, cutoff), config, ownership, pairs, cutoff)
    aligned = ibis.union(*[align(probe, seen.joined) for probe in islice(probe_rows, None if probed else 1)])
    first += int(scalar(connection, events.count()))
    probes = numbered(connection, "probes", aligned, ROW, [], first)
    labelled = with_tasks(ibis.union(events, probes), config, last)
    # A label that looks at later events costs more than to keep it.
    keep = materialise if any(task.by for task in config.tasks) else named
    table = keep(connection, "timeline", labelled.mutate(**_tiles(labelled, config)))
    keys = dict.fromkeys(key for keys in (*pairs, *(cross.of for cross in config.crosses)) for key in keys)
    return Timeline(table, ownership, pairs, tuple(keys), last, cutoff, carry_over, probed)


def pair_keys(config: FeaturesConfig, ownership: Ownership) -> tuple[tuple[str, ...], ...]:
    """The distinct key sets of aggregates that belong to no single side, in order of first use."""
    sets = [
        aggregate.by
        for place, aggregate in enumerate(config.aggregates)
        if ownership.group_side(aggregate.by, f"data.aggregates[{place}].by") == "pair"
    ]
    return tuple(dict.fromkeys(sets))


def _check_features(
    config: FeaturesConfig, ownership: Ownership, events: ir.Table, entities: dict[str, ir.Table]
) -> None:
    check_columns(config, ownership, events, entities)
    if config.events.key is not None and config.events.key not in events.columns:
        message = f"data.events.key names {config.events.key!r}, which the log does not have"
        raise ConfigError(message)
    needs = {
        "aggregates": config.aggregates,
        "histories": config.histories,
        "negatives": config.negatives,
        "tasks with `within`": any(task.within for task in config.tasks),
        "known_at": any(entity.known_at for entity in (config.users, config.items) if entity),
        f"split by {config.split.by}": config.split.by in {"user_time", "time"},
        "split.embargo": getattr(config.split, "embargo", None),
    }
    named = [name for name, needed in needs.items() if needed]
    if named and config.events.time is None:
        message = f"{', '.join(named)} need data.events.time: the column with the event's time"
        raise ConfigError(message)


def _log(
    connection: Backend, config: FeaturesConfig, events: ir.Table, span: Span, carry_over: CarryOver | None
) -> ir.Table:
    """Log and past with time in milliseconds; the past lies one millisecond before the log's first day."""
    kind, order = ibis.literal(EVENT, "int8"), ibis.literal(0, "int64")
    log = events.mutate(**{TIME: event_ms(events, config), KIND: kind, ORDER: order})
    if carry_over is not None:
        # On the column as it is stored, so that files and row groups of earlier days are not read.
        begin = datetime.fromtimestamp(carry_over.until_ms / 1000, UTC)
        log = log.filter(log[config.events.time or TIME] >= ibis.literal(begin, "timestamp('UTC')"))
    if config.past is None:
        return log
    past = with_lists(read_table(connection, config.past, "data.past", raw_columns(config, config.past)), config)
    order = past[config.past.order].cast("int64") if config.past.order else ibis.literal(0, "int64")
    zone = config.events.time_zone
    before = day_begin_ms(day_number(span.first_ms, zone), zone) - 1
    dated = past.mutate(**{TIME: ibis.literal(before, "int64"), KIND: ibis.literal(PAST, "int8"), ORDER: order})
    return ibis.union(log, align(dated, log))


@dataclass(frozen=True)
class LoggedRows:
    """What all rows of the log held: those `joined`, and those of earlier days."""

    connection: Backend
    joined: ir.Table
    carry_over: CarryOver | None

    def latest(self, side: str, key: str, columns: tuple[str, ...]) -> ir.Table:
        """Each value of a key with the latest ones of some columns."""

        def choose(rows: ir.Table) -> ir.Table:
            return rows.filter(rows[key].notnull()).select(key, *columns, TIME)

        def reduce(rows: ir.Table) -> ir.Table:
            newest = rows.group_by(key).aggregate(**{TIME: rows[TIME].max()})
            if not columns:
                return newest
            # The rows of each key's last moment are few, and to look for them first takes a third of the time.
            rows = rows.semi_join(newest, [key, TIME])
            values = {column: rows[column].argmax(rows[TIME]) for column in columns}
            return rows.group_by(key).aggregate(**values, **{TIME: rows[TIME].max()})

        return self._reduced(side, choose, reduce).drop(TIME)

    def distinct(self, place: int, keys: tuple[str, ...]) -> ir.Table:
        """The values that some keys had together."""

        def choose(rows: ir.Table) -> ir.Table:
            return rows.filter([rows[key].notnull() for key in keys]).select(*keys)

        return self._reduced(f"pairs_{place}", choose, lambda rows: rows.distinct())

    def _reduced(self, name: str, choose: Rows, reduce: Rows) -> ir.Table:
        rows = choose(self.joined)
        if self.carry_over is not None:
            rows = ibis.union(rows, align(self.carry_over.merge(self.connection, name, choose, reduce), rows))
        return reduce(rows)


def _probes(
    seen: LoggedRows,
    entities: dict[str, ir.Table],
    config: FeaturesConfig,
    ownership: Ownership,
    pairs: tuple[tuple[str, ...], ...],
    cutoff: int,
) -> Iterable[ir.Table]:
    """One table a kind of probe; columns that a probe does not have are null."""
    yield _dated(ibis.literal(1).name("nobody").as_table(), NOBODY, cutoff)
    for kind, side, own in ((USER, "user", config.events.user_columns), (ITEM, "item", config.events.item_columns)):
        key = ownership.user if side == "user" else ownership.item
        if key is not None:
            entity = entities.get(side)
            if entity is not None:
                owned = [c for c in entity.columns if c == key or (ownership.sides[c] == side and c not in own)]
                entity = entity[owned]
            yield _dated(_entity_probe(seen.latest(side, key, own), entity, key, own), kind, cutoff)
    for place, keys in enumerate(pairs):
        yield _dated(seen.distinct(place, keys), FIRST_PAIR + place, cutoff)


def _entity_probe(latest: ir.Table, entity: ir.Table | None, key: str, own: tuple[str, ...]) -> ir.Table:
    """Every key of the log or of its entity table, with its attributes and the latest value of its log columns."""
    if entity is None:
        return latest
    attributes = entity.mutate(**{key: entity[key].cast(latest[key].type())})
    ids = ibis.union(latest.select(key), attributes.select(key), distinct=True)
    probe = ids.left_join(attributes, key).drop(f"{key}_right")
    return probe.left_join(latest, key).drop(f"{key}_right") if own else probe


def _dated(table: ir.Table, kind: int, cutoff: int) -> ir.Table:
    return table.mutate(
        **{TIME: ibis.literal(cutoff, "int64"), KIND: ibis.literal(kind, "int8"), ORDER: ibis.literal(0, "int64")}
    )


def _tiles(table: ir.Table, config: FeaturesConfig) -> dict[str, ir.Value]:
    """The number of each row's hour and day in the log's time zone."""
    zone = config.events.time_zone
    return {tile_column("hour"): hour_of(table[TIME], zone), tile_column("day"): day_of(table[TIME], zone)}


def _row_order(config: FeaturesConfig) -> list[str]:
    """Rows lie in the order of time; ties in the order of their keys, so that a build repeats itself."""
    return [KIND, TIME, ORDER, *(key for key in (config.events.user, config.events.item) if key)]
