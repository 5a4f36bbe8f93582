"""Guess what the columns of raw tables are: keys, the time, labels and features, by their names and what they hold."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from contract.errors import ConfigError
from features.source.profile import ColumnProfile

Profiles = Mapping[str, ColumnProfile]
Kind = Literal["id", "id_list", "dense"]

_USER = re.compile(r"(^|_)(user|customer|visitor|member|client|account|session|uid|user_?id)(_|$)", re.IGNORECASE)
_ITEM = re.compile(
    r"(^|_)(item|sku|product|article|video|movie|film|news|rest|restaurant|listing|doc|document|ad|song|track|iid|job|post"
    r"|book|content|offer|hotel)(_|$)",
    re.IGNORECASE,
)
_TIME = re.compile(r"(^|_)(ts|time|timestamp|at|date|datetime|when|created|occurred)(_|$)", re.IGNORECASE)
_BINARY = re.compile(
    r"^(is_|has_)?(label|target|y|click|clicked|clicks|like|liked|likes|long_view|purchase|purchased|bought|buy|order|ordered"
    r"|convert|converted|conversion|follow|followed|share|shared|comment|commented|hate|hated|watched|finished|installed"
    r"|booked|applied|subscribed)$",
    re.IGNORECASE,
)
_MEASURE = re.compile(
    r"(^|_)(rating|score|stars|watch|dwell|duration|play_time|eta|basket|amount|revenue|gmv|spend|delay|target|label)(_|$)",
    re.IGNORECASE,
)
_TYPE = re.compile(r"(^|_)(event|action|behavior|behaviour|activity)(_type|_name|_kind)?$|^type$", re.IGNORECASE)
_SHOWN = re.compile(r"view|impress|show|expos|display|page", re.IGNORECASE)
_TAKEN = re.compile(
    r"purchas|buy|bought|order|checkout|install|convert|conversion|subscrib|book|apply|cart", re.IGNORECASE
)
_EPOCH = {"s": (1e8, 4e9), "ms": (1e11, 4e12), "us": (1e14, 4e15), "ns": (1e17, 4e18)}
FEW_VALUES = 64
"""Whole numbers of so few values are names of something, and no sizes."""
RARE = 1_000
"""Ids of more values than this take only those that are seen a few times."""


@dataclass(frozen=True)
class EventType:
    """A column that tells kinds of events apart: those shown, those that are an answer, and those that come later."""

    column: str
    shown: tuple[str, ...]
    answered: tuple[str, ...]
    later: tuple[str, ...]


@dataclass(frozen=True)
class Roles:
    """What the columns of a log are; a role that no column has is None."""

    user: str | None
    item: str | None
    time: str | None
    event_type: EventType | None
    binary: tuple[str, ...]
    measures: tuple[str, ...]


@dataclass(frozen=True)
class GuessedFeature:
    """A column as a feature: its name in the recipe, where it stands in its table, and how it is taken."""

    name: str
    path: str
    kind: Kind
    options: Mapping[str, object] = field(default_factory=dict)


def guess_roles(events: Profiles, users: Profiles | None, items: Profiles | None, asked: Iterable[str] = ()) -> Roles:
    """The roles of a log's columns; `asked` names labels.

    Raises:
        ConfigError: a label that is no column, or none that can be guessed.
    """
    user = key_of_table(events, users, _USER)
    item = key_of_table(events, items, _ITEM, taken=user)
    labels = list(asked)
    for label in labels:
        if label not in events:
            message = f"--label {label!r} is no column of the log; there are {', '.join(events)}"
            raise ConfigError(message)
    free = [c for c in events.values() if c.path not in (user, item)]
    binary = [c.path for c in free if _is_binary(c) and (c.path in labels or (not labels and _BINARY.match(c.name)))]
    measures = [
        c.path
        for c in free
        if _is_number(c) and c.path not in binary and (c.path in labels or (not labels and _MEASURE.search(c.name)))
    ]
    return Roles(user, item, _time(events), None if labels else _event_type(free), tuple(binary), tuple(measures))


def key_of_table(
    events: Profiles, table: Profiles | None, names: re.Pattern[str], taken: str | None = None
) -> str | None:
    """The log's column that names an entity: shared with its table, where it is unique, or else by its name."""
    if table is not None:
        shared = [c.path for c in table.values() if c.is_unique and c.path in events and c.path != taken]
        if shared:
            return shared[0]
    fits = [
        c for c in events.values() if names.search(c.name) and c.path != taken and not c.is_unique and "." not in c.path
    ]
    fits = [c for c in fits if c.dtype.is_integer() or c.dtype.is_string() or c.dtype.is_floating()]
    return max(fits, key=lambda c: c.distinct).path if fits else None


def epoch_unit(column: ColumnProfile) -> str | None:
    """The unit of numbers since 1970 that a column may hold; None: it holds none."""
    if not (column.dtype.is_integer() or column.dtype.is_floating()) or column.low is None:
        return None
    return next((unit for unit, (low, high) in _EPOCH.items() if low <= column.low <= column.high <= high), None)


def _time(events: Profiles) -> str | None:
    whole = [c for c in events.values() if not c.nulls and "." not in c.path]
    moments = [c for c in whole if c.dtype.is_timestamp()] or [
        c for c in whole if _TIME.search(c.name) and (epoch_unit(c) or c.dtype.is_date())
    ]
    named = [c for c in moments if _TIME.search(c.name)] or moments
    return max(named, key=lambda c: c.distinct).path if named else None


def _event_type(columns: Iterable[ColumnProfile]) -> EventType | None:
    for column in columns:
        if column.dtype.is_string() and len(column.values) > 1 and _TYPE.search(column.name):
            values = [str(value) for value in column.values]
            shown = tuple(v for v in values if _SHOWN.search(v))
            later = tuple(v for v in values if _TAKEN.search(v) and v not in shown)
            answered = tuple(v for v in values if v not in (*shown, *later))
            if answered or later:
                return EventType(column.path, shown, answered, later)
    return None


def _is_binary(column: ColumnProfile) -> bool:
    if column.dtype.is_boolean():
        return True
    return bool(column.dtype.is_numeric()) and set(column.values) == {0, 1}


def _is_number(column: ColumnProfile) -> bool:
    return bool(column.dtype.is_numeric() and column.distinct > 2)  # noqa: PLR2004 - two values are no measure


def guess_features(columns: Profiles, without: Iterable[str]) -> list[GuessedFeature]:
    """The columns that may be features: not constant ones, not one value a row, and none of those left out."""
    left_out = set(without)
    guesses = []
    for column in columns.values():
        if column.path in left_out or column.path.partition(".")[0] in left_out:
            continue
        guess = _feature(column)
        if guess is not None:
            guesses.append(guess)
    return guesses


def _feature(column: ColumnProfile) -> GuessedFeature | None:  # noqa: PLR0911 - a kind of column a line
    dtype = column.dtype
    if dtype.is_array():
        inner = dtype.value_type
        fits = inner.is_string() or inner.is_integer()
        return GuessedFeature(column.name, column.path, "id_list") if fits else None
    if column.distinct <= 1 or (column.is_unique and (dtype.is_string() or dtype.is_integer())):
        return None
    if dtype.is_string():
        if column.separated > 1 / 2:
            return GuessedFeature(column.name, column.path, "id_list", {"separator": "|"})
        return GuessedFeature(column.name, column.path, "id", {"min_count": 3} if column.distinct > RARE else {})
    if dtype.is_boolean() or (dtype.is_integer() and column.distinct <= FEW_VALUES):
        return GuessedFeature(column.name, column.path, "id")
    if dtype.is_numeric() or dtype.is_timestamp() or dtype.is_date():
        return GuessedFeature(column.name, column.path, "dense")
    return None
