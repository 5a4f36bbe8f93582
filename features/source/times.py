"""The moments of events."""

import ibis
import ibis.expr.types as ir

from features.feature_config import FeaturesConfig
from features.source.expressions import epoch_ms


def event_ms(events: ir.Table, config: FeaturesConfig) -> ir.Value:
    """The time of each event in milliseconds since 1970; 0 in a log without time."""
    time = config.events.time
    return epoch_ms(events[time]).cast("int64") if time else ibis.literal(0, "int64")
