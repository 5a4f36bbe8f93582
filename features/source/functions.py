"""The functions of the expression language, by name."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import ibis

from contract.errors import ConfigError
from features.source.row_types import is_nan
from features.source.zones import local_ms, utc_ms

NANOSECONDS = 9
"""The scale of times that DuckDB would round to microseconds."""
_epoch_us: Callable[[Any], Any] = ibis.udf.scalar.builtin(
    lambda time: time, name="epoch_us", signature=((None,), "int64")
)
"""DuckDB's own, which takes a fifth of the time of its conversions of times with a zone."""


_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def widened(value: Any) -> Any:
    """A number in a type whose sums and differences do not overflow: no unsigned, short or boolean one."""
    if not isinstance(value, ibis.Expr):
        return value
    dtype = value.type()
    if dtype.is_unsigned_integer() and dtype.nbytes == ibis.dtype("int64").nbytes:
        return value.cast("decimal(38, 0)")
    if dtype.is_boolean() or (dtype.is_integer() and not dtype.is_int64()):
        return value.cast("int64")
    return value.cast("float64") if dtype.is_floating() and not dtype.is_float64() else value


_divide: Callable[[Any, Any], Any] = ibis.udf.scalar.builtin(
    lambda number, by: number + by, name="divide", signature=((None, None), "int64")
)
"""DuckDB's division of whole numbers, which goes through no fraction."""


def modulo(number: Any, by: Any) -> Any:
    """What a division leaves over, with the divisor's sign, as in Python; engines give it the number's sign."""
    return (number % by + by) % by


def floor_divide(number: Any, by: Any) -> Any:
    """A division rounded down; of whole numbers of 64 bits to the last digit, which a fraction would not hold."""
    whole = all(isinstance(v, int) or (isinstance(v, ibis.Expr) and v.type().is_integer()) for v in (number, by))
    expressions = [v for v in (number, by) if isinstance(v, ibis.Expr)]
    if not whole or not expressions:
        return nan_as_null(number) // nan_as_null(by)
    rest = number - modulo(number, by)
    if all(v.get_backend().name == "duckdb" for v in expressions):
        return _divide(rest, by)
    return (_exact(rest) / _exact(by)).cast("int64")


def _exact(number: Any) -> Any:
    value = number if isinstance(number, ibis.Expr) else ibis.literal(number, "int64")
    return value.cast("decimal(20, 0)")


def _log1p(value: Any) -> Any:
    return (value.cast("float64") + 1).ln()


def _log(value: Any) -> Any:
    return value.cast("float64").ln()


def _round(value: Any, digits: int = 0) -> Any:
    return nan_as_null(value.cast("float64")).round(digits)


def _int(value: Any) -> Any:
    """A whole number; fractions are cut off, not rounded."""
    value = nan_as_null(value)
    if value.type().is_floating() or value.type().is_decimal():
        value = ibis.ifelse(value < 0, value.ceil(), value.floor())
    return value.cast("int64")


def _is_null(value: Any) -> Any:
    """Whether a value is missing; NaN is, too."""
    missing = value.isnull()
    return missing | is_nan(value).fill_null(False) if value.type().is_floating() else missing  # noqa: FBT003


def _coalesce(*values: Any) -> Any:
    """The first value that is not missing; NaN is."""
    return ibis.coalesce(*[nan_as_null(value) for value in values])


def nan_as_null(value: Any) -> Any:
    """A value whose NaN counts as missing, like null."""
    if isinstance(value, ibis.Expr) and value.type().is_floating():
        return ibis.ifelse(is_nan(value), ibis.null(value.type()), value)
    return value


def split_text(value: Any, separator: str) -> Any:
    """The parts of a text between separators, without spaces around them and without empty ones."""
    return value.split(separator).map(lambda part: part.strip()).filter(lambda part: part.length() > 0)


def _substring(value: Any, begin: int, length: int | None = None) -> Any:
    return value.substr(begin, length)


def from_epoch(value: Any, unit: str = "s") -> Any:
    """The moment of a number since 1970 in UTC, to the millisecond.

    Raises:
        ConfigError: a unit that there is not.
    """
    each = _per_second(unit)
    value = nan_as_null(value)
    if value.type().is_floating() or value.type().is_decimal():
        ms = (value.cast("float64") * (1_000 / each)).round().cast("int64")
    else:
        whole = value.cast("int64")
        ms = whole // (each // 1_000) if each > 1_000 else whole * (1_000 // each)  # noqa: PLR2004
    return ms.as_timestamp("ms").cast("timestamp('UTC')")


def epoch(value: Any, unit: str = "s") -> Any:
    """Whole units since 1970 in UTC of a moment, rounded down.

    Raises:
        ConfigError: a unit that there is not.
    """
    each = _per_second(unit)
    ms = epoch_ms(value)
    return ms // (1_000 // each) if each < 1_000 else ms * (each // 1_000)  # noqa: PLR2004


def _per_second(unit: str) -> int:
    if unit not in _PER_SECOND:
        message = f"{unit!r} is not a unit of time; there are {', '.join(_PER_SECOND)}"
        raise ConfigError(message)
    return _PER_SECOND[unit]


def from_local(value: Any, zone: str = "UTC") -> Any:
    """The moment at which the clocks of a zone showed a time: of a time without zone, a date, or an ISO text."""
    if value.type().is_string():
        # A text may name its own zone, which then counts.
        moment = value.cast("timestamp('UTC')")
        if zone == "UTC":
            return moment
        return ibis.ifelse(value.re_search(_OWN_ZONE), moment, from_local(moment.cast("timestamp"), zone))
    if value.type().is_timestamp() and value.type().timezone is not None:
        return value
    clock = value.cast("timestamp")
    if zone == "UTC":
        return clock.cast("timestamp('UTC')")
    ms = epoch_ms(clock)
    return from_epoch(utc_ms(ms, zone), "ms")


_OWN_ZONE = r":[0-9.]+\s*([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)\s*$"
"""How a text of a day and a time ends that names its zone; one of a day alone ends in ``-DD``, too."""


def _parse_time(value: Any, pattern: str) -> Any:
    """The clock time of a text that is written by a pattern of `strptime`, such as ``%d/%m/%Y %H:%M``."""
    return value.as_timestamp(pattern)


def _clip(value: Any, low: Any, high: Any) -> Any:
    return nan_as_null(value).clip(lower=low, upper=high)


def _bucket(value: Any, *edges: Any) -> Any:
    """The number of edges at or below the value; null stays null."""
    known = nan_as_null(value)
    return functools.reduce(operator.add, [(known >= edge).cast("int64") for edge in edges])


def _greatest(*values: Any) -> Any:
    return ibis.greatest(*[nan_as_null(value) for value in values])


def _least(*values: Any) -> Any:
    return ibis.least(*[nan_as_null(value) for value in values])


def _first(value: Any) -> Any:
    return ibis.ifelse(value.length() > 0, value[0], ibis.null())


def _hour(value: Any, zone: str = "UTC") -> Any:
    return modulo(local_seconds(value, zone) // 3600, 24)


def _weekday(value: Any, zone: str = "UTC") -> Any:
    """Monday is 0; 1 January 1970 was a Thursday."""
    return modulo(local_seconds(value, zone) // 86_400 + 3, 7)


def _weekend(value: Any, zone: str = "UTC") -> Any:
    return (_weekday(value, zone) >= 5).cast("int64")  # noqa: PLR2004 - Saturday and Sunday


def _month(value: Any, zone: str = "UTC") -> Any:
    return _civil(value, zone)[1]


def _day(value: Any, zone: str = "UTC") -> Any:
    return _civil(value, zone)[2]


def _civil(value: Any, zone: str) -> tuple[Any, Any, Any]:
    """Year, month and day of the month (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    days = local_seconds(value, zone) // 86_400 + 719_468
    era = days // 146_097
    of_era = days % 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = (shifted + 2) % 12 + 1
    return year + era * 400 + (month <= 2).cast("int64"), month, of_year - (153 * shifted + 2) // 5 + 1  # noqa: PLR2004


def _seconds_between(later: Any, earlier: Any) -> Any:
    """Seconds from one time to another."""
    return (epoch_ms(later) - epoch_ms(earlier)) / 1000


def epoch_ms(value: Any) -> Any:
    """Milliseconds since 1970 in UTC as an integer, the only form of time that all engines treat alike."""
    if value.get_backend().name == "duckdb" and value.type().scale != NANOSECONDS:
        return (_epoch_us(value) // 1000).cast("int64")
    if value.type().timezone is not None:
        return epoch_ms(value.cast("timestamp"))
    # DuckDB's epoch is a float that keeps the fraction of a second, whatever ibis says of its type.
    seconds = value.truncate("s").epoch_seconds().cast("float64").cast("int64")
    return seconds * 1000 + value.millisecond()


def local_seconds(value: Any, zone: str) -> Any:
    """Seconds since 1970 on the clocks of a time zone, summer time included."""
    return local_ms(epoch_ms(value), zone) // 1000


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": lambda value: widened(value).abs(),
    "bucket": _bucket,
    "ceil": lambda value: nan_as_null(value).ceil(),
    "clip": _clip,
    "coalesce": _coalesce,
    "contains": lambda value, part: value.contains(part),
    "day": _day,
    "ends_with": lambda value, part: value.endswith(part),
    "epoch": epoch,
    "exp": lambda value: value.cast("float64").exp(),
    "first": _first,
    "float": lambda value: value.cast("float64"),
    "floor": lambda value: nan_as_null(value).floor(),
    "from_epoch": from_epoch,
    "from_local": from_local,
    "greatest": _greatest,
    "hour": _hour,
    "int": _int,
    "is_null": _is_null,
    "least": _least,
    "length": lambda value: value.length(),
    "log": _log,
    "log1p": _log1p,
    "lower": lambda value: value.lower(),
    "matches": lambda value, pattern: value.re_search(pattern),
    "month": _month,
    "parse_time": _parse_time,
    "replace": lambda value, old, new: value.replace(old, new),
    "round": _round,
    "seconds_between": _seconds_between,
    "split": split_text,
    "sqrt": lambda value: value.cast("float64").sqrt(),
    "starts_with": lambda value, part: value.startswith(part),
    "substring": _substring,
    "text": lambda value: nan_as_null(value).cast("string"),
    "trim": lambda value: value.strip(),
    "upper": lambda value: value.upper(),
    "weekday": _weekday,
    "weekend": _weekend,
}
