"""Find which column of one table names the rows of another: by what the two hold, and by their names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import ibis.expr.types as ir

from features.source.expressions import compile_condition, compile_expression
from features.source.profile import SAMPLED_ROWS, ColumnProfile, is_text, profile_table
from features.source.query_engine import Backend, to_arrow
from pipeline.project import column_words as words

_LEAST_SHARED = 0.3
"""The share of a key's values that the other table must have."""
_MOST_VALUES = 50_000
_TRIED = 8
_NESTED = 0.25
"""How much less likely a field of a struct is than a column of its own."""


@dataclass(frozen=True)
class KeyPair:
    """A column of the log, that of a table with the same values, and what gives the latter the former's type."""

    column: str
    key: str
    cast: str = ""


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it lies, and what its columns hold."""

    connection: Backend
    path: str
    table: ir.Table
    columns: Mapping[str, ColumnProfile]
    names: Sequence[str]
    """The names in its files, also of columns that are not read."""

    @classmethod
    def look_at(cls, connection: Backend, path: str, table: ir.Table, names: Sequence[str]) -> "RawTable":
        """A table with its profile."""
        return cls(connection, path, table, profile_table(connection, table), names)

    def only(self, condition: str) -> "RawTable":
        """The rows for which a condition holds."""
        kept = self.table.filter(compile_condition(condition, self.table, self.path))
        return RawTable.look_at(self.connection, self.path, kept, self.names)

    @property
    def word(self) -> str:
        """What its file's or folder's name says a row is."""
        name = self.path.rstrip("/").rpartition("/")[2].partition(".")[0]
        return words.singular(words.snake(name.partition("*")[0]))

    def value(self, path: str) -> ir.Value:
        """A column or a field by its path."""
        return compile_expression(path, self.table, self.path)

    @cache  # noqa: B019 - a table lives as long as the draft
    def values(self, path: str) -> frozenset[str]:
        """The values of a column as texts; whole numbers without a fraction."""
        head = self.table.limit(SAMPLED_ROWS)
        flat = head.select(value=compile_expression(path, head, self.path)).distinct().limit(_MOST_VALUES)
        distinct = to_arrow(self.connection, flat)["value"].drop_null().to_pylist()
        return frozenset(str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in distinct)


def match_key(
    log: RawTable, table: RawTable, roles: Sequence[re.Pattern[str]], taken: str | None = None
) -> KeyPair | None:
    """The columns of log and table that name the same things, the likeliest; `roles` are patterns of names of such."""
    best, most = None, 0.0
    for key in _keys(table):
        for column in log.columns.values():
            if column.path == taken or column.distinct <= 1 or not _is_key(column):
                continue
            # The field of a struct may be called as the key is; whole paths seldom are.
            same = words.snake(key.title) in {words.snake(column.title), words.snake(column.title.rpartition(".")[2])}
            shared = _shared(log, column, table, key)
            if shared < _LEAST_SHARED and not (same and shared > 0):
                continue
            score = shared + 2 * same + _likeness(words.snake(column.title), words.snake(key.title), table.word, roles)
            score -= _NESTED * (column.is_nested + key.is_nested)
            if score > most:
                best, most = KeyPair(column.path, key.path, _cast(column, key)), score
    return best


def _keys(table: RawTable) -> Iterator[ColumnProfile]:
    """The columns that may name the rows of a table, the likeliest first; a few may stand twice."""
    fits = [c for c in table.columns.values() if _is_key(c) and c.distinct * 2 >= c.rows - c.nulls]
    named = sorted(fits, key=lambda c: (not c.is_unique, c.is_nested, not words.NAME_OF.search(words.snake(c.title))))
    yield from named[:_TRIED]


def _is_key(column: ColumnProfile) -> bool:
    dtype = column.dtype
    whole = dtype.is_floating() and column.low is not None and float(column.low).is_integer()
    return bool(dtype.is_integer() or is_text(dtype) or whole)


def _shared(log: RawTable, column: ColumnProfile, table: RawTable, key: ColumnProfile) -> float:
    here, there = log.values(column.path), table.values(key.path)
    return len(here & there) / max(len(here), 1)


def _likeness(column: str, key: str, word: str, roles: Sequence[re.Pattern[str]]) -> float:
    """How much the names say that a column of the log refers to the table."""
    score = 0.0
    if word and word in column.split("_"):
        score += 1.5
    if any(pattern.search(column) for pattern in roles):
        score += 1.0
    return score + 0.5 * bool(words.NAME_OF.search(key)) + 0.5 * bool(words.NAME_OF.search(column))


def _cast(column: ColumnProfile, key: ColumnProfile) -> str:
    """The function that makes the table's key of the log's type; empty where it is."""
    if is_text(column.dtype) == is_text(key.dtype):
        return ""
    return "text" if is_text(column.dtype) else "int"
