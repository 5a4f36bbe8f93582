"""Moments: of events, and of columns whose type does not say that they are."""

import ibis
import ibis.expr.types as ir

from contract.errors import ConfigError
from features.feature_config import FeaturesConfig
from features.source.functions import epoch_ms, from_epoch, from_local
from features.table_config import TimeFormat


def event_ms(events: ir.Table, config: FeaturesConfig) -> ir.Value:
    """The time of each event in milliseconds since 1970; 0 in a log without time."""
    time = config.events.time
    return epoch_ms(events[time]).cast("int64") if time else ibis.literal(0, "int64")


def as_moment(value: ir.Value, how: TimeFormat, where: str) -> ir.Value:
    """A column as moments: numbers since 1970 by their unit, times without zone, dates and ISO texts by their clocks.

    Raises:
        ConfigError: a type that tells no moment that way.
    """
    dtype = value.type()
    if dtype.is_numeric():
        if how.unit is None:
            message = f"{where}: the column is {dtype}; say the `unit` of its numbers: s, ms, us or ns since 1970"
            raise ConfigError(message)
        return from_epoch(value, how.unit)
    if how.unit is not None or not (dtype.is_timestamp() or dtype.is_date() or dtype.is_string()):
        message = (
            f"{where}: the column is {dtype}; `unit` is for numbers, `zone` for times without one, dates and texts"
        )
        raise ConfigError(message)
    return from_local(value, how.zone)
