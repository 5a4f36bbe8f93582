"""Which nights of a log can be replayed: the days on which it has events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from contract.errors import ConfigError, DataError
from features.feature_config import FeaturesConfig
from features.incremental.failed_place import explain, unverified
from features.served.served_events import with_served_rows
from features.source.functions import epoch_ms
from features.source.query_engine import connect, disconnect, engine_errors, to_arrow
from features.source.tables import place_of, read_table, require_columns, require_zone
from features.source.used_columns import raw_columns
from features.source.zones import day_of

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class ReplayedNight:
    """The last day of the log that a night reads, and whether the log has events on it."""

    day: date
    has_events: bool


def nights_to_replay(config: FeaturesConfig, first: date, last: date) -> list[ReplayedNight]:
    """The nights after the days `first` to `last`.

    Raises:
        ConfigError: `last` is before `first`, or after the log's last day: later nights would all read the same rows.
        DataError: a log that cannot be read.
    """
    if last < first:
        message = f"--from {first} is after --to {last}; give the earlier day first"
        raise ConfigError(message)
    days = log_days(config)
    if last > days[-1]:
        message = (
            f"--to {last} is after the log's last day, {days[-1]} in {config.events.time_zone}: the nights after it "
            f"would all train on the same rows; give --to {days[-1]} or an earlier day"
        )
        raise ConfigError(message)
    return list_nights(days, first, last)


def list_nights(days: Sequence[date], first: date, last: date) -> list[ReplayedNight]:
    """All nights from one day to another, of a log with events on some `days`.

    Example:
        >>> nights = list_nights([date(2026, 5, 1), date(2026, 5, 3)], date(2026, 5, 1), date(2026, 5, 3))
        >>> [(night.day.day, night.has_events) for night in nights]
        [(1, True), (2, False), (3, True)]
    """
    known = set(days)
    wanted = (first + timedelta(number) for number in range((last - first).days + 1))
    return [ReplayedNight(day, day in known) for day in wanted]


def log_days(config: FeaturesConfig) -> list[date]:
    """The days on which a log has events, in its time zone and in order, whatever `until` says.

    Raises:
        ConfigError: a log without time.
        DataError: a log that cannot be read.
    """
    time = config.events.time
    if time is None:
        message = "data.events.time names no column, so that no earlier night of the log can be told; name the time"
        raise ConfigError(message)
    with TemporaryDirectory() as folder:
        config = with_served_rows(unverified(config), Path(folder) / "served")
        events = config.events
        connection = connect("1GB", Path(folder))
        try:
            table = read_table(connection, events, "data.events", raw_columns(config, events))
            require_columns(table, {time: "data.events.time"}, place_of(events))
            require_zone(table, time, place_of(events))
            days = table.select(day=day_of(epoch_ms(table[time]).cast("int64"), events.time_zone)).distinct()
            numbers = to_arrow(connection, days.filter(days["day"].notnull()))["day"].to_pylist()
        except engine_errors() as error:
            raise DataError(explain(connection, config, error)) from error
        finally:
            disconnect(connection)
    return [_EPOCH + timedelta(number) for number in sorted(numbers)]
