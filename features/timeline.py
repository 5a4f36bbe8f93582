"""The timeline: log, past and probes in one table, over which every feature is one expression.

Probes are rows without labels at the first moment after the log, one for each user, each item and each pair of keys
seen, and one with no keys at all. A feature's value on a probe is what online tables serve: the same expression, as of
the end of the log.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from features.config import FeaturesConfig
from features.errors import ConfigError, DataError
from features.expressions import column_names, compile_expression, epoch_ms, utc_offset_seconds
from features.ownership import Ownership, find_ownership
from features.sources import check_types, key_of, read_entity, read_events, read_table

EVENT, PAST, NOBODY, USER, ITEM, FIRST_PAIR = 0, 1, 2, 3, 4, 5
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
KIND, ROW, TIME, ORDER = "__kind", "__row", "__time", "__order"


@dataclass(frozen=True)
class Timeline:
    """The materialised table with what is known of it; `pairs[i]` are the keys of probe kind ``FIRST_PAIR + i``."""

    table: ir.Table
    ownership: Ownership
    pairs: tuple[tuple[str, ...], ...]
    cutoff_ms: int


def build_timeline(connection: Backend, config: FeaturesConfig) -> Timeline:
    """Join log, past and attributes, append the probes, add labels and weights, and materialise the result.

    Raises:
        DataError: a source that cannot be used.
        ConfigError: a column or expression that does not exist.
    """
    events = read_events(connection, config)
    entities = _entities(connection, config)
    columns = {side: tuple(table.columns) for side, table in entities.items()}
    ownership = find_ownership(config, events.columns, columns.get("user", ()), columns.get("item", ()))
    _check_features(config, ownership, events, entities)
    log = _log(connection, config, events)
    pairs = pair_keys(config, ownership)
    whole = _with_attributes(log, entities, config)
    used = used_columns(config)
    joined = connection.create_table("joined", whole.select([c for c in whole.columns if c in used]), temp=True)
    cutoff = _cutoff(connection, joined, config)
    probes = _probes(joined, entities, config, ownership, pairs, cutoff)
    whole = ibis.union(joined, *[_align(probe, joined) for probe in probes])
    labelled = _with_tasks(whole, config)
    labelled = labelled.mutate(**{ROW: _row_number(labelled, config)}, **_tiles(labelled, config))
    table = connection.create_table("timeline", labelled, temp=True)
    return Timeline(table, ownership, pairs, cutoff)


def pair_keys(config: FeaturesConfig, ownership: Ownership) -> tuple[tuple[str, ...], ...]:
    """The distinct key sets of aggregates that belong to no single side, in order of first use."""
    sets = [
        aggregate.by
        for place, aggregate in enumerate(config.aggregates)
        if ownership.group_side(aggregate.by, f"data.aggregates[{place}].by") == "pair"
    ]
    return tuple(dict.fromkeys(sets))


def used_columns(config: FeaturesConfig) -> set[str]:
    """Every column that a feature, a key or an expression refers to; the rest is never read."""
    texts = [text for task in config.tasks for text in (task.label, task.where, task.weight)]
    texts += [history.where for history in config.histories]
    if config.split.by == "expression":
        texts += [config.split.valid, config.split.test]
    used = {name for text in texts if text for name in column_names(text)}
    used |= {feature.name for feature in config.features}
    used |= {name for aggregate in config.aggregates for name in (*aggregate.by, *aggregate.of)}
    used |= {name for history in config.histories for name in (history.of, history.by)}
    return used | {name for name in (config.events.user, config.events.item, TIME, KIND, ORDER) if name}


def _entities(connection: Backend, config: FeaturesConfig) -> dict[str, ir.Table]:
    entities = {}
    for side, entity in (("user", config.users), ("item", config.items)):
        if entity is not None:
            table = read_entity(connection, entity, f"data.{side}s")
            entities[side] = table.rename({key_of(config, side): entity.key})
    return entities


def _check_features(
    config: FeaturesConfig, ownership: Ownership, events: ir.Table, entities: dict[str, ir.Table]
) -> None:
    for place, feature in enumerate(config.features):
        side = ownership.side(feature.name, f"data.features[{place}]")
        table = events if feature.name in events.columns else entities[side]
        check_types(table, [feature.name], f"data.features[{place}]")
    needs_time = config.aggregates or config.histories or config.split.by == "user_time"
    if needs_time and config.events.time is None:
        message = "aggregates, histories and split by user_time need data.events.time: the column with the event's time"
        raise ConfigError(message)


def _log(connection: Backend, config: FeaturesConfig, events: ir.Table) -> ir.Table:
    """Log and past with time in milliseconds; the past lies one millisecond before the log's first day."""
    time = config.events.time
    ms = epoch_ms(events[time]) if time else ibis.literal(0, "int64")
    log = events.mutate(**{TIME: ms.cast("int64"), KIND: ibis.literal(EVENT, "int8"), ORDER: ibis.literal(0, "int64")})
    if config.past is None:
        return log
    past = read_table(connection, config.past, "data.past")
    order = past[config.past.order].cast("int64") if config.past.order else ibis.literal(0, "int64")
    first = int(connection.to_pyarrow(log[TIME].min()).as_py())
    before = _day_start(first, config.events.time_zone) - 1
    dated = past.mutate(**{TIME: ibis.literal(before, "int64"), KIND: ibis.literal(PAST, "int8"), ORDER: order})
    return ibis.union(log, _align(dated, log))


def _day_start(ms: int, zone: str) -> int:
    offset = utc_offset_seconds(zone) * 1000
    return (ms + offset) // DAY_MS * DAY_MS - offset


def _with_attributes(log: ir.Table, entities: dict[str, ir.Table], config: FeaturesConfig) -> ir.Table:
    for side, entity in entities.items():
        key = key_of(config, side)
        kept = [key, *(c for c in entity.columns if c not in log.columns)]
        if entity[key].type() != log[key].type():
            _check_same_kind(log, entity, key, side)
            entity = entity.mutate(**{key: entity[key].cast(log[key].type())})  # noqa: PLW2901 - the same entity, cast
        log = log.left_join(entity[kept], key).drop(f"{key}_right")
    return log


def _check_same_kind(log: ir.Table, entity: ir.Table, key: str, side: str) -> None:
    if not (entity[key].type().is_integer() and log[key].type().is_integer()):
        message = (
            f"column {key!r} is {log[key].type()} in the log, but {entity[key].type()} in data.{side}s; "
            "make them one type"
        )
        raise DataError(message)


def _cutoff(connection: Backend, joined: ir.Table, config: FeaturesConfig) -> int:
    last = int(connection.to_pyarrow(joined[TIME].max()).as_py())
    return _day_start(last, config.events.time_zone) + DAY_MS


def _probes(
    joined: ir.Table,
    entities: dict[str, ir.Table],
    config: FeaturesConfig,
    ownership: Ownership,
    pairs: tuple[tuple[str, ...], ...],
    cutoff: int,
) -> Iterable[ir.Table]:
    """One table a kind of probe; columns that a probe does not have are null."""
    yield _dated(joined.select(nobody=ibis.literal(1)).limit(1), NOBODY, cutoff)
    for kind, side, own in ((USER, "user", config.events.user_columns), (ITEM, "item", config.events.item_columns)):
        key = ownership.user if side == "user" else ownership.item
        if key is not None:
            entity = entities.get(side)
            if entity is not None:
                owned = [c for c in entity.columns if c == key or (ownership.sides[c] == side and c not in own)]
                entity = entity[owned]
            yield _dated(_entity_probe(joined, entity, key, own), kind, cutoff)
    for place, keys in enumerate(pairs):
        present = joined.filter([joined[key].notnull() for key in keys])
        yield _dated(present.select(*keys).distinct(), FIRST_PAIR + place, cutoff)


def _entity_probe(joined: ir.Table, entity: ir.Table | None, key: str, own: tuple[str, ...]) -> ir.Table:
    """Every key of the log or of its entity table, with its attributes and the latest value of its log columns."""
    seen = joined.filter(joined[key].notnull())
    latest = seen.group_by(key).aggregate(**{c: seen[c].argmax(seen[TIME]) for c in own})
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


def _align(table: ir.Table, like: ir.Table) -> ir.Table:
    """The columns of `like` in its order and types; those that `table` lacks are null."""
    schema = like.schema()
    return table.select(
        **{name: table[name].cast(kind) if name in table.columns else ibis.null(kind) for name, kind in schema.items()}
    )


def without_nan(value: ir.Value) -> ir.Value:
    """A number as float64 in which NaN is null: one way to be missing is enough."""
    number = value.cast("float64")
    return ibis.ifelse(number.isnan(), ibis.null("float64"), number)


def _with_tasks(table: ir.Table, config: FeaturesConfig) -> ir.Table:
    """Add ``label__T`` float64 and ``weight__T`` float64 (0 where the task does not apply or has no label)."""
    added = {}
    for place, task in enumerate(config.tasks):
        where = f"data.tasks[{place}]"
        label = without_nan(compile_expression(task.label, table, f"{where}.label"))
        weight = compile_expression(task.weight, table, f"{where}.weight") if task.weight else ibis.literal(1.0)
        applies = label.notnull() & (table[KIND] <= PAST)
        if task.where:
            applies = applies & compile_expression(task.where, table, f"{where}.where").fill_null(False)  # noqa: FBT003
        added[f"label__{task.name}"] = ibis.ifelse(applies, label, ibis.null("float64"))
        added[f"weight__{task.name}"] = ibis.ifelse(applies, weight.cast("float64"), 0.0)
    return table.mutate(**added)


def tile_column(as_of: str) -> str:
    """The column that numbers complete hours or days."""
    return f"__{as_of}"


def _tiles(table: ir.Table, config: FeaturesConfig) -> dict[str, ir.Value]:
    """The number of each row's hour and day in the log's time zone."""
    local = table[TIME] + utc_offset_seconds(config.events.time_zone) * 1000
    return {tile_column(unit): (local // size).cast("int64") for unit, size in (("hour", HOUR_MS), ("day", DAY_MS))}


def _row_number(table: ir.Table, config: FeaturesConfig) -> ir.Value:
    """Rows in the order of time; ties in the order of their keys, so that a build repeats itself."""
    keys = [table[key] for key in (config.events.user, config.events.item) if key]
    return ibis.row_number().over(order_by=[table[KIND], table[TIME], table[ORDER], *keys])
