"""The log of a recipe: one row per event, with what came of it, checked for its keys and its time."""

from collections.abc import Mapping
from datetime import date

import ibis.expr.types as ir

from contract.errors import ConfigError, DataError
from features.feature_config import FeaturesConfig
from features.source.functions import epoch_ms
from features.source.key_columns import as_key
from features.source.label_tables import with_labels
from features.source.query_engine import Backend, scalar, to_arrow
from features.source.served_join import with_served
from features.source.tables import place_of, read_table, require_columns, require_zone, with_lists
from features.source.used_columns import raw_columns
from features.source.zones import day_of
from features.table_config import EventsConfig

_EPOCH = date(1970, 1, 1)
_YEAR_MS = 31_556_952_000
_PLAUSIBLE_MS = (2 * _YEAR_MS, 230 * _YEAR_MS)
"""Between 1972 and 2200 the last event of a log lies; a wrong unit moves it by a factor of a thousand."""


def read_events(
    connection: Backend, config: FeaturesConfig, known: Mapping[str, str] | None = None
) -> tuple[ir.Table, frozenset[str]]:
    """The log, checked for its keys and time, with exact duplicates kept, dropped or refused; and its unsigned keys.

    Raises:
        DataError: a missing key or time column, a time without zone, a null time, or a refused duplicate.
    """
    events = config.events
    table = read_table(connection, events, "data.events", raw_columns(config, events), known)
    named = {"user": events.user, "item": events.item, "time": events.time}
    require_columns(table, {c: f"data.events.{entry}" for entry, c in named.items() if c}, place_of(events))
    if events.time is not None:
        _check_time(connection, table, events)
    if events.served is not None and events.path != events.served:
        table = with_served(connection, table, events)
    unsigned = frozenset(key for key in (events.user, events.item) if key and table[key].type().is_uint64())
    table = with_keys(connection, with_labels(connection, table, config), config)
    return _without_duplicates(connection, with_end(table, events), events), unsigned


def with_end(table: ir.Table, events: EventsConfig) -> ir.Table:
    """The log up to the last day that is read.

    Raises:
        ConfigError: a last day, but no time.
    """
    if events.until is None:
        return table
    if events.time is None:
        message = f"{place_of(events)}: data.events.until is {events.until}, but data.events.time names no column"
        raise ConfigError(message)
    day = day_of(epoch_ms(table[events.time]).cast("int64"), events.time_zone)
    return table.filter(day <= (events.until - _EPOCH).days)


def with_keys(connection: Backend, table: ir.Table, config: FeaturesConfig) -> ir.Table:
    """The log with its keys in the types that keys have, and with its lists.

    Raises:
        DataError: a key with fractions.
    """
    keys = [key for key in (config.events.user, config.events.item) if key is not None]
    keyed = table.mutate(**{key: as_key(connection, table, key, place_of(config.events)) for key in keys})
    return with_lists(keyed, config)


def _check_time(connection: Backend, table: ir.Table, events: EventsConfig) -> None:
    time, path = str(events.time), place_of(events)
    require_zone(table, time, path)
    at = epoch_ms(table[time])
    facts = to_arrow(connection, table.aggregate(missing=at.isnull().sum(), last=at.max())).to_pylist()[0]
    if facts["missing"]:
        message = f"{path}: {facts['missing']} rows have no {time!r}; every event needs its time"
        raise DataError(message)
    how = events.times.get(time)
    is_early = how is not None and how.unit is not None and facts["last"] < _PLAUSIBLE_MS[0]
    if is_early or facts["last"] > _PLAUSIBLE_MS[1]:
        unit = f", read as {how.unit} since 1970" if how is not None and how.unit is not None else ""
        message = (
            f"{path}: the last event would be in the year {1970 + facts['last'] // _YEAR_MS} by column {time!r}{unit}; "
            f"say its unit, such as `times: {{{time}: {{unit: ms}}}}`"
        )
        raise DataError(message)


def _without_duplicates(connection: Backend, table: ir.Table, events: EventsConfig) -> ir.Table:
    if events.duplicates == "keep":
        return table
    distinct = table.distinct()
    if events.duplicates == "first":
        return distinct
    total, unique = (int(scalar(connection, t.count())) for t in (table, distinct))
    if total != unique:
        message = f"{place_of(events)}: {total - unique} of {total} rows repeat another exactly; set duplicates: first"
        raise DataError(message)
    return table
