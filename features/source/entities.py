"""Attributes of users and items: read, and joined to the log as they were known at each event."""

from collections.abc import Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from contract.columns import TIME
from contract.errors import DataError
from features.feature_config import FeaturesConfig
from features.source.event_log import read_events
from features.source.functions import epoch_ms
from features.source.query_engine import Backend
from features.source.tables import key_of, place_of, read_entity, require_columns, require_zone, with_lists
from features.source.used_columns import raw_columns, used_columns
from features.table_config import EntityConfig

Entities = dict[str, ir.Table]
"""The table of users or of items by side, its key renamed to the log's."""


@dataclass(frozen=True)
class Sources:
    """The log, and what is known of its users and items.

    `unsigned` are the log's keys whose whole numbers from 2**63 on are those below 0 with the same bits.
    """

    events: ir.Table
    entities: Entities
    unsigned: frozenset[str] = frozenset()


def read_sources(connection: Backend, config: FeaturesConfig, known: Mapping[str, str] | None = None) -> Sources:
    """Open and check the tables of a recipe; of the log's files, those `known` by path and version were before.

    Raises:
        DataError: one that cannot be used.
        ConfigError: a derived column that cannot be compiled.
    """
    (events, unsigned), entities = read_events(connection, config, known), read_entities(connection, config)
    for side, entity in entities.items():
        key = key_of(config, side)
        here, there = events[key].type().copy(nullable=True), entity[key].type().copy(nullable=True)
        if here != there and here.is_integer() and there.is_integer():
            # Either may have keys that the other's type cannot hold.
            events = events.mutate(**{key: events[key].cast("int64")})
            entities[side] = entity.mutate(**{key: entity[key].cast("int64")})
    used = used_columns(config) | {entity.known_at for entity in _configs(config).values() if entity.known_at}
    return Sources(events, _apart(events, entities, used), unsigned)


def _apart(events: ir.Table, entities: Entities, used: set[str]) -> Entities:
    """The entity tables without unused columns that another table spells with other capitals.

    Raises:
        DataError: a used one: an engine would give the other table's values.
    """
    known = {name.lower(): (name, "the log") for name in events.columns}
    apart = {}
    for side, entity in entities.items():
        where = f"data.{side}s"
        alike = [c for c in entity.columns if known.setdefault(c.lower(), (c, where))[0] != c]
        for column in alike:
            other, there = known[column.lower()]
            if column in used:
                message = (
                    f"{where} has the column {column!r}, and {there} {other!r}, which engines take for one; name it "
                    f"otherwise, such as `columns: {{{side}_{column}: {column}}}` under {where}"
                )
                raise DataError(message)
        apart[side] = entity.drop(*alike) if alike else entity
    return apart


def read_entities(connection: Backend, config: FeaturesConfig) -> Entities:
    """The entity tables of a recipe, checked.

    Raises:
        DataError: a table without its key, with a key twice, or with a `known_at` that is not a time with a zone.
    """
    entities = {}
    for side, entity in _configs(config).items():
        table = with_lists(read_entity(connection, entity, f"data.{side}s", raw_columns(config, entity)), config)
        if entity.known_at is not None:
            require_columns(table, {entity.known_at: f"data.{side}s.known_at"}, place_of(entity))
            require_zone(table, entity.known_at, place_of(entity))
        entities[side] = table.rename({key_of(config, side): entity.key})
    return entities


def with_attributes(log: ir.Table, entities: Entities, config: FeaturesConfig) -> ir.Table:
    """The log with the attributes that were known at each event; the log's own columns win a name.

    Raises:
        DataError: keys of different types.
    """
    for side, entity in entities.items():
        key, known_at = key_of(config, side), _configs(config)[side].known_at
        columns = [key, *(c for c in entity.columns if c not in log.columns)]
        if entity[key].type() != log[key].type():
            _check_same_kind(log, entity, key, side)
            entity = entity.mutate(**{key: entity[key].cast(log[key].type())})  # noqa: PLW2901 - the same entity, cast
        log = log.left_join(entity[columns], key).drop(f"{key}_right")
        if known_at is not None and known_at in columns:
            log = _hide(log, columns[1:], epoch_ms(log[known_at]) > log[TIME])
    return log


def known_by(entities: Entities, config: FeaturesConfig, moment_ms: int) -> Entities:
    """The entity tables as they were known at a moment."""
    known = {}
    for side, entity in entities.items():
        at, key = _configs(config)[side].known_at, key_of(config, side)
        attributes = [c for c in entity.columns if c != key]
        known[side] = _hide(entity, attributes, epoch_ms(entity[at]) > moment_ms) if at else entity
    return known


def _hide(table: ir.Table, columns: list[str], unknown: ir.BooleanValue) -> ir.Table:
    return table.mutate(**{c: ibis.ifelse(unknown, ibis.null(table[c].type()), table[c]) for c in columns})


def _configs(config: FeaturesConfig) -> dict[str, EntityConfig]:
    return {side: entity for side, entity in (("user", config.users), ("item", config.items)) if entity is not None}


def _check_same_kind(log: ir.Table, entity: ir.Table, key: str, side: str) -> None:
    if not (entity[key].type().is_integer() and log[key].type().is_integer()):
        message = (
            f"column {key!r} is {log[key].type()} in the log, but {entity[key].type()} in data.{side}s; "
            f"make them one type, such as `columns: {{{key}: text({key})}}` under one of them"
        )
        raise DataError(message)
