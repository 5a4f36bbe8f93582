"""The timeline's own columns, and the kinds of its rows."""

import ibis
import ibis.expr.types as ir

EVENT, PAST, NOBODY, USER, ITEM, FIRST_PAIR = 0, 1, 2, 3, 4, 5
"""An event of the log, one older than it, and probes: of no key, of a user, of an item, and of pairs of keys."""
SAMPLED = 100
"""A sampled negative: it trains, and no feature counts it."""
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
KIND, ROW, ORDER = "__kind", "__row", "__order"
OBSERVED = "observed"
"""With sampled negatives, the column that is 0 on them and 1 on the log's events."""


def is_nan(value: ir.Value) -> ir.Value:
    """Whether a floating number is NaN; null for null and for 0.

    Parquet's statistics leave NaN out, so that DuckDB 2.0 takes a column to have none, and `isnan` of it to be false;
    it knows nothing of what `nullif` gives.
    """
    return value.nullif(0).isnan()


def without_nan(value: ir.Value) -> ir.Value:
    """A number as float64 in which NaN is null: one way to be missing is enough."""
    number = value.cast("float64")
    if value.type().is_integer() or value.type().is_boolean():
        return number
    return ibis.ifelse(is_nan(number), ibis.null("float64"), number)


def tile_column(as_of: str) -> str:
    """The column that numbers complete hours or days."""
    return f"__{as_of}"
