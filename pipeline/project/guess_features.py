"""Guess which columns are features, and of which kind."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from features.source.expressions import compile_expression
from features.source.profile import ColumnProfile, is_moment, is_scalar, is_text
from features.source.query_engine import to_arrow
from pipeline.project import column_words as words
from pipeline.project.guess_times import read_as
from pipeline.project.match_keys import RawTable

Kind = Literal["id", "id_list", "dense", "vector"]
FEW_VALUES = 64
"""Whole numbers of so few values are names of something, and no sizes."""
RARE = 1_000
"""Ids of more values than this take only those that are seen a few times."""
WIDEST_VECTOR = 1024
_SEPARATORS = ("|", ";", ",")
_LONGEST_PART = 24
_BEYOND_MEASURE = 1e30
"""Larger numbers, infinite ones among them, are marks of what is missing."""
_CALENDAR_ROWS = 50_000


@dataclass(frozen=True)
class GuessedFeature:
    """A column as a feature: its name in the recipe, where it stands in its table, and how it is taken."""

    name: str
    path: str
    kind: Kind
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class LeftOut:
    """A column that is not a feature, and why."""

    title: str
    why: str


class Names:
    """Names that a recipe's columns have, told apart as engines do: without regard to capitals."""

    def __init__(self, taken: Iterable[str]) -> None:
        """`taken` are names that columns have as they lie."""
        self._taken = {name.lower() for name in taken}

    def take(self, wanted: str, *others: str) -> str:
        """The first name that is free, or one with a number."""
        numbered = (f"{(others or (wanted,))[-1]}_{n}" for n in range(2, 10_000))
        name = next(n for n in (wanted, *others, *numbered) if n.lower() not in self._taken)
        self._taken.add(name.lower())
        return name

    def add(self, names: Iterable[str]) -> None:
        """Others that are taken."""
        self._taken |= {name.lower() for name in names}


def guess_features(
    table: RawTable, without: Collection[str], names: Names, side: str = ""
) -> tuple[list[GuessedFeature], list[LeftOut]]:
    """The columns that may be features, and those that may not: constant ones, others with one value a row.

    Those `without` which the features are to be are in neither. A column keeps its name where a recipe can write it and
    nothing else has it; else it is named after its words.
    """
    own = {name.lower() for name in table.table.columns} if not side else set()
    features, left_out = [], []
    for column in table.columns.values():
        if _is_among(column.path, without):
            continue
        title = column.title
        guess = _guess(column, side)
        if isinstance(guess, str):
            left_out.append(LeftOut(title, guess))
            continue
        kind, options, path = guess
        if title.lower() in own and title.isidentifier():
            name = title
        else:
            plain = words.plain(title, "c")
            wanted = [title] if title.isidentifier() and title in table.table.columns else [plain]
            name = names.take(*wanted, *([f"{side}_{plain}"] if side else []))
        features.append(GuessedFeature(name, path, kind, options))
    return features, left_out


def left_out_note(columns: Iterable[LeftOut]) -> str:
    """One line that says what is not a feature and why; empty where all columns are."""
    by_reason: dict[str, list[str]] = {}
    for column in columns:
        by_reason.setdefault(column.why, []).append(column.title)
    listed = [f"{', '.join(titles)} ({why})" for why, titles in by_reason.items()]
    # Names may hold what would end the comment, or what a recipe takes for a variable.
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", "; ".join(listed)).replace("$", "$$")
    return f"left out: {text}" if text else ""


def _is_among(path: str, others: Collection[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in others)


def _guess(column: ColumnProfile, side: str) -> tuple[Kind, dict[str, object], str] | str:
    """A column's kind, its options and its value as an expression; or why it is not a feature."""
    moment = read_as(column)
    if column.dtype.is_array():
        listed = _kind_of_list(column)
        return (*listed, column.path) if listed else "a list of neither names nor numbers"
    if not is_scalar(column.dtype):
        return f"of type {type(column.dtype).__name__.lower()}"
    if column.distinct <= 1 and not _is_sparse(column):
        return "one value" if column.distinct else "no value"
    if moment is not None and (is_moment(column.dtype) or is_text(column.dtype)):
        written = words.CHANGED.search(words.snake(column.title))
        path = moment.value if is_text(column.dtype) else column.path
        return "when the row was written" if written else ("dense", {}, path)
    # A table of items has one row each, so that a size, such as a price, may have a value of its own in every one.
    sized = bool(side) and column.dtype.is_integer() and not words.NAME_OF.search(words.snake(column.title))
    if column.is_unique and not sized and (is_text(column.dtype) or column.dtype.is_integer()):
        return "a value of its own in each row"
    return (*_kind_of(column), _bounded(column))


def _is_sparse(column: ColumnProfile) -> bool:
    """Whether a column is one name where it is anything, such as a mark of what is on sale: nulls are the other."""
    return bool(column.distinct and column.nulls and (is_text(column.dtype) or column.dtype.is_boolean()))


def _bounded(column: ColumnProfile) -> str:
    """A column as it is, or without the values beyond all measure that stand for missing ones."""
    ends = (column.low, column.high) if column.dtype.is_floating() and column.low is not None else ()
    wild = any(not abs(end) < _BEYOND_MEASURE for end in ends)
    return f"if(abs({column.path}) < {_BEYOND_MEASURE:g}, {column.path}, null)" if wild else column.path


def _kind_of(column: ColumnProfile) -> tuple[Kind, dict[str, object]]:
    dtype = column.dtype
    if is_text(dtype):
        separator = separator_of(column.examples)
        if separator is not None:
            return "id_list", {"separator": separator}
        return "id", _rare(column)
    if dtype.is_boolean() or (dtype.is_integer() and column.distinct <= FEW_VALUES):
        return "id", {}
    if dtype.is_integer() and words.NAME_OF.search(words.snake(column.title)):
        return "id", _rare(column)
    return "dense", {}


def _rare(column: ColumnProfile) -> dict[str, object]:
    return {"min_count": 3} if column.distinct > RARE else {}


def _kind_of_list(column: ColumnProfile) -> tuple[Kind, dict[str, object]] | None:
    inner, (shortest, longest) = column.dtype.value_type, column.lengths
    if is_text(inner) or inner.is_integer():
        return ("id_list", {}) if longest > 0 else None
    if (inner.is_floating() or inner.is_decimal()) and 1 < shortest == longest <= WIDEST_VECTOR:
        return "vector", {"width": longest}
    return None


def separator_of(texts: Sequence[str]) -> str | None:
    """What stands between the values of texts that are lists, such as ``drama|war``; None: they are none."""
    for separator in _SEPARATORS if texts else ():
        parts = [[part.strip() for part in text.split(separator)] for text in texts]
        seen = Counter(value for part in parts for value in set(part))
        several = sum(len(part) > 1 for part in parts)
        # Values of lists come again in other lists; the parts of sentences do not.
        again = sum(count > 1 for count in seen.values())
        if max(map(len, seen)) <= _LONGEST_PART and several * 3 >= len(texts) and again * 2 >= len(seen):
            return separator
    return None


def calendar_columns(table: RawTable, moment: str, columns: Iterable[ColumnProfile]) -> set[str]:
    """The columns that only tell when a row was, such as a folder's day: no later row has a value that was seen."""
    paths = {f"c{n}": c.path for n, c in enumerate(columns) if is_scalar(c.dtype) and c.distinct > 1}
    if not paths:
        return set()
    head = table.table.limit(_CALENDAR_ROWS)
    values = {name: compile_expression(path, head, table.path) for name, path in paths.items()}
    rows = to_arrow(table.connection, head.select(__at=compile_expression(moment, head, table.path), **values))
    rows = rows.filter(pc.is_valid(rows["__at"])).sort_by("__at")
    return {path for name, path in paths.items() if _comes_once(rows[name])}


def _comes_once(column: pa.ChunkedArray) -> bool:
    """Whether each value of a column stands in one piece, and there is more than one row per value."""
    codes = column.combine_chunks().dictionary_encode().indices.fill_null(-1)
    runs = 1 + int(pc.sum(pc.not_equal(codes[1:], codes[:-1])).as_py() or 0)
    distinct = pc.count_distinct(codes).as_py()
    return bool(1 < distinct == runs and distinct * 2 <= len(codes))
