"""Guess what the columns of a log are: keys, the time and labels, by their names and what they hold."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract.errors import ConfigError
from features.source.profile import ColumnProfile, is_text
from pipeline.project import column_words as words
from pipeline.project.guess_times import Moment, find_moment
from pipeline.project.match_keys import KeyPair

Profiles = Mapping[str, ColumnProfile]
_MOST_OUTCOMES = 8


@dataclass(frozen=True)
class EventType:
    """A column that tells kinds of events apart: those shown, those that are an answer, and those that come later."""

    column: str
    shown: tuple[str, ...]
    answered: tuple[str, ...]
    later: tuple[str, ...]


@dataclass(frozen=True)
class BinaryLabel:
    """A column that says what came of an event, and the value that means yes, as an expression writes it.

    `name` is what the answer is called, where it is not as the column.
    """

    column: str
    yes: str | None = None
    name: str = ""


@dataclass(frozen=True)
class Roles:
    """What the columns of a log are; a role that no column has is None."""

    user: str | None
    item: str | None
    time: Moment | None
    event_type: EventType | None
    binary: tuple[BinaryLabel, ...]
    measures: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """The columns that name the user and the item."""
        return [key for key in (self.user, self.item) if key is not None]

    @property
    def times_keys(self) -> bool:
        """Whether a later event can be told to be of an earlier one's user and item."""
        return self.user is not None and self.item is not None and self.time is not None


def guess_roles(
    events: Profiles, user: KeyPair | None, item: KeyPair | None, named_labels: Sequence[str] = ()
) -> Roles:
    """The roles of a log's columns; `user` and `item` were found in their own tables.

    `named_labels` are the labels that were named on the command line.

    Raises:
        ConfigError: a label that is not a column, or one that cannot be predicted.
    """
    who = user.column if user else _named_key(events, words.USERS, item.column if item else None)
    what = item.column if item else _named_key(events, words.ITEMS, who)
    by_name = {name: path for path, column in events.items() for name in (column.title, path)}
    for label in named_labels:
        if label not in by_name:
            message = (
                f"--label {label!r} is not a column of the log; there are {', '.join(c.title for c in events.values())}"
            )
            raise ConfigError(message)
    labels = {by_name[label] for label in named_labels}
    when = find_moment(c for c in events.values() if c.path not in (who, what, *labels))
    free = [c for c in events.values() if c.path not in (who, what, when.column if when else None)]
    if labels:
        named = [c for c in free if c.path in labels]
        binary = [two_valued for c in named if (two_valued := _binary(c) or _either(c)) is not None]
        measures = [c.path for c in named if _is_number(c) and c.path not in {b.column for b in binary}]
        _refuse_unfit([c for c in named if c.distinct < 2 or c.path not in {*measures, *(b.column for b in binary)}])  # noqa: PLR2004
        return Roles(who, what, when, None, tuple(binary), tuple(measures))
    kind = _event_type(free)
    return Roles(who, what, when, kind, tuple(_answers(free, kind)), tuple(_measures(free)))


def _named_key(events: Profiles, tiers: Iterable[re.Pattern[str]], taken: str | None) -> str | None:
    """The column that names an entity: by the surest of names, and of those the one with the most values."""
    fits = [
        c
        for c in events.values()
        if c.path != taken and not c.is_unique and c.distinct > 1
        if c.dtype.is_integer() or is_text(c.dtype) or c.dtype.is_floating() or c.dtype.is_decimal()
    ]
    for names in tiers:
        # A field of a struct may name an entity too, but a column of its own is the surer one.
        for nested in (False, True):
            columns = [c for c in fits if c.is_nested is nested and _names_entity(c, names)]
            named = [c for c in columns if words.NAME_OF.search(words.snake(c.title))] or columns
            if named:
                return max(named, key=lambda c: c.distinct).path
    return None


def _names_entity(column: ColumnProfile, names: re.Pattern[str]) -> bool:
    """Whether a column is called after an entity: ``video.id`` is, ``video.topic`` says something about one."""
    whole, field = (words.snake(title) for title in (column.title, column.title.rpartition(".")[2]))
    if column.is_nested and not names.search(field):
        return bool(names.search(whole) and words.NAME_OF.search(field))
    return bool(names.search(whole))


def _binary(column: ColumnProfile) -> BinaryLabel | None:
    """A column of two values, and which of them means yes."""
    if column.dtype.is_boolean() or (column.dtype.is_integer() and set(column.values) == {0, 1}):
        return BinaryLabel(column.path)
    if len(column.values) != 2:  # noqa: PLR2004 - yes and no
        return None
    if column.dtype.is_numeric():
        low, high = column.values
        return BinaryLabel(column.path, f"{high:g}") if low < high else None
    if not is_text(column.dtype):
        return None
    yes = [v for v in column.values if words.POSITIVE.match(words.snake(v))]
    no = [v for v in column.values if words.NEGATIVE.match(words.snake(v))]
    if len(yes) == 1:
        return BinaryLabel(column.path, repr(yes[0]))
    others = [v for v in column.values if v not in no]
    return BinaryLabel(column.path, repr(others[0])) if len(no) == 1 else None


def _either(column: ColumnProfile) -> BinaryLabel | None:
    """A label that was named, of two texts of which none says yes: the later one in the alphabet is predicted."""
    if not is_text(column.dtype) or len(column.values) != 2:  # noqa: PLR2004
        return None
    return BinaryLabel(column.path, repr(max(column.values)))


def _refuse_unfit(columns: Sequence[ColumnProfile]) -> None:
    for column in columns:
        message = (
            f"--label {column.title!r} cannot be predicted: it is {column.dtype} with {column.distinct} values; "
            "allowed are numbers, true or false, and texts of two values; of more texts, name another label and write "
            f"a task with `label: {column.path} == '...'` into the file"
        )
        raise ConfigError(message)


def _answers(free: Sequence[ColumnProfile], kind: EventType | None) -> list[BinaryLabel]:
    """Columns of two values whose names say that they are an answer; where none does, conditions that may be one."""
    answers = [
        label
        for column in free
        if (kind is None or column.path != kind.column) and words.ANSWER.match(words.snake(column.title))
        if (label := _binary(column)) is not None
    ]
    if not answers and kind is None:
        answers = _outcomes(free)
    if answers or kind is not None or _measures(free):
        return answers
    return [label for c in free if not c.is_nested and c.dtype.is_boolean() and (label := _binary(c)) is not None][:1]


def _outcomes(free: Sequence[ColumnProfile]) -> list[BinaryLabel]:
    """Of a column that says in words what came of its row, each word other than those for nothing."""
    named = (c for c in free if is_text(c.dtype) and words.OUTCOME.search(words.snake(c.title)))
    column = next((c for c in named if 1 < len(c.values) <= _MOST_OUTCOMES), None)
    if column is None:
        return []
    if (label := _binary(column)) is not None:
        return [label]
    nothing = [v for v in column.values if words.NEGATIVE.match(words.snake(v)) or words.SEEN.match(words.snake(v))]
    if not nothing:
        return []
    return [BinaryLabel(column.path, repr(v), v) for v in column.values if v not in nothing]


def _measures(free: Sequence[ColumnProfile]) -> list[str]:
    named = [c for c in free if _is_number(c) and not words.SUMMARY.search(words.snake(c.title))]
    for names in (words.MEASURE, words.WEAK_MEASURE):
        measures = [c.path for c in named if names.search(words.snake(c.title))]
        if measures:
            return measures
    return []


def _is_number(column: ColumnProfile) -> bool:
    return bool(column.dtype.is_numeric() and column.distinct > 2)  # noqa: PLR2004 - two values are not a measure


def _event_type(columns: Iterable[ColumnProfile]) -> EventType | None:
    texts = [c for c in columns if is_text(c.dtype) and len(c.values) > 1]
    named = [c for c in texts if words.TYPE.search(words.snake(c.title))]
    for column in [*named, *(c for c in texts if _are_actions(c.values))]:
        values = [str(value) for value in column.values]
        later = tuple(v for v in values if words.TAKEN.search(words.snake(v)))
        shown = tuple(v for v in values if words.SHOWN.search(words.snake(v)) and v not in later)
        answered = tuple(v for v in values if v not in (*shown, *later))
        if shown and (answered or later):
            return EventType(column.path, shown, answered, later)
        if len(answered) > 1 and column in named:
            # Nothing says what was only shown: each kind is told from the others.
            return EventType(column.path, (), answered, later)
    return None


def _are_actions(values: Sequence[str]) -> bool:
    """Whether the values of a column are what people do: some are shown and others answer."""
    names = [words.snake(str(value)) for value in values]
    said = [n for n in names if any(p.search(n) for p in (words.SHOWN, words.TAKEN, words.ANSWERED))]
    return len(said) == len(names) and any(not words.SHOWN.search(n) for n in names)
