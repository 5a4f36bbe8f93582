"""Guess which column of a table says when, and how a recipe must read it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from features.source.profile import ColumnProfile, is_text
from pipeline.project import column_words as words

_EPOCH = {"s": (1e8, 4e9), "ms": (1e11, 4e12), "us": (1e14, 4e15), "ns": (1e17, 4e18)}
_DAY_NUMBERS = (19_900_101, 20_991_231)
_PATTERNS = (
    "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%d", "%Y%m%d%H%M%S", "%Y%m%dT%H%M%SZ", "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M", "%d.%m.%Y", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%d/%m/%Y", "%d-%m-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%m-%Y", "%d-%b-%Y", "%d %b %Y",
    "%b %d, %Y", "%b %d %Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%a %b %d %H:%M:%S %Y",
)  # fmt: skip
_MOST_NULLS = 0.5


@dataclass(frozen=True)
class Moment:
    """A column of moments: what `times` says of it, or the expression that reads it; or neither, if its type does."""

    column: str
    times: str = ""
    expression: str = ""
    has_nulls: bool = False

    @property
    def value(self) -> str:
        """The moment as an expression on the table as it lies."""
        if self.expression:
            return self.expression
        name, _, option = self.times.partition(": ")
        if not name:
            return self.column
        return f"from_epoch({self.column}, '{option}')" if name == "unit" else f"from_local({self.column}, '{option}')"


def find_moment(columns: Iterable[ColumnProfile]) -> Moment | None:
    """The moment of the event: a time by type, or by name and values; of several the one with the most values."""
    fits = [c for c in columns if c.distinct > 1 and c.nulls <= c.rows * _MOST_NULLS]
    moments = [(column, moment) for column in fits if (moment := read_as(column)) is not None]
    if not moments:
        return None
    column, moment = max(moments, key=lambda pair: _likeness(pair[0]))
    # `times` names a column, and a field of a struct is none.
    return replace(moment, times="", expression=moment.value) if column.is_nested else moment


def _likeness(column: ColumnProfile) -> tuple[bool, bool, bool, bool, bool, bool, int]:
    """How well a column fits as the event's own time: its names first, then how finely it tells times apart."""
    name = words.snake(column.title)
    fine = not (column.dtype.is_date() or _are_days(column))
    return (
        not column.is_nested,
        not words.OTHER_TIME.search(name),
        fine,
        not words.AFTER.search(name),
        not column.nulls,
        bool(words.TIME.search(name)),
        column.distinct,
    )


def read_as(column: ColumnProfile) -> Moment | None:
    """How a column is read as moments; None: it holds none, as far as its name and values tell."""
    path, dtype, has_nulls = column.path, column.dtype, bool(column.nulls)
    if dtype.is_timestamp():
        return Moment(path, "" if dtype.timezone is not None else "zone: UTC", has_nulls=has_nulls)
    if dtype.is_date() or are_iso(column):
        return Moment(path, "zone: UTC", has_nulls=has_nulls)
    name = words.snake(column.title)
    if not any(known.search(name) for known in (words.TIME, words.OTHER_TIME, words.AFTER)):
        return None
    unit = epoch_unit(column)
    if unit is not None:
        return Moment(path, f"unit: {unit}", has_nulls=has_nulls)
    if _are_days(column):
        return Moment(path, expression=f"from_local(parse_time(text(int({path})), '%Y%m%d'))", has_nulls=has_nulls)
    return _of_texts(column)


def _of_texts(column: ColumnProfile) -> Moment | None:
    if not is_text(column.dtype) or not column.examples:
        return None
    path, has_nulls = column.path, bool(column.nulls)
    if all(example.isdigit() for example in column.examples):
        numbers = [int(example) for example in column.examples]
        unit = _unit(min(numbers), max(numbers))
        if unit is not None:
            return Moment(path, expression=f"from_epoch(int({path}), '{unit}')", has_nulls=has_nulls)
    pattern = next((p for p in _PATTERNS if _all_read(column.examples, p)), None)
    if pattern is None:
        return None
    return Moment(path, expression=f"from_local(parse_time({path}, '{pattern}'))", has_nulls=has_nulls)


def are_iso(column: ColumnProfile) -> bool:
    """Whether the texts of a column are dates or times such as ``2026-03-01T08:15:00``, whatever its name."""
    return is_text(column.dtype) and bool(column.examples) and all(map(_is_iso, column.examples))


def _is_iso(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "-" in text


def _all_read(texts: Sequence[str], pattern: str) -> bool:
    try:
        for text in texts:
            datetime.strptime(text, pattern)  # noqa: DTZ007 - only whether it fits
    except ValueError:
        return False
    return True


def epoch_unit(column: ColumnProfile) -> str | None:
    """The unit of numbers since 1970 that a column may hold; None: it holds none."""
    if not column.dtype.is_numeric() or column.low is None:
        return None
    return _unit(float(column.low), float(column.high))


def _unit(low: float, high: float) -> str | None:
    return next((unit for unit, (least, most) in _EPOCH.items() if least <= low <= high <= most), None)


def _are_days(column: ColumnProfile) -> bool:
    """Whether whole numbers are days such as 20260301."""
    if not column.dtype.is_integer() or column.low is None:
        return False
    if not _DAY_NUMBERS[0] <= column.low <= column.high <= _DAY_NUMBERS[1]:
        return False
    return all(_all_read([str(number)], "%Y%m%d") for number in (column.low, column.high, *column.values))
