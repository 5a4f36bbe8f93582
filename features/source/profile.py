"""What the columns of a table hold, at a glance: for guessing what they are."""

import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ibis.expr.types as ir

from features.source.functions import nan_as_null
from features.source.query_engine import Backend, to_arrow

SAMPLED_ROWS = 200_000
_FEW = 12
_EXAMPLES = 500
"""Distinct texts that are looked at for what they are: times, lists."""
_WORDS = {"true", "false", "null"}


@dataclass(frozen=True)
class ColumnProfile:
    """A column, or a field of a struct by its `path`: its type, and what its first rows hold."""

    path: str
    dtype: Any
    rows: int
    nulls: int
    distinct: int
    low: Any = None
    high: Any = None
    values: tuple[Any, ...] = ()
    """All values, in order, where they are few."""
    examples: tuple[str, ...] = ()
    """Some of its distinct texts."""
    lengths: tuple[int, int] = (0, 0)
    """The shortest and the longest of its lists."""

    @property
    def title(self) -> str:
        """Its path without what only the expression language needs."""
        return self.path.replace("`", "")

    @property
    def is_unique(self) -> bool:
        """Whether no two rows share a value."""
        return not self.nulls and self.distinct == self.rows

    @property
    def is_nested(self) -> bool:
        """Whether it is a field of a struct."""
        return "." in self.path.rpartition("`")[2] or self.path.count("`") > 2  # noqa: PLR2004 - one name has two


def profile_table(connection: Backend, table: ir.Table) -> dict[str, ColumnProfile]:
    """The columns of a table by path, structs by their fields, from its first `SAMPLED_ROWS` rows; NaN is null."""
    head = table.limit(SAMPLED_ROWS)
    paths = dict(_leaves(head))
    named = {f"c{place}": nan_as_null(value) for place, value in enumerate(paths.values())}
    flat = head.select(**named)
    facts: dict[str, Any] = {"rows": flat.count()}
    for name in named:
        facts |= {f"{fact}_{name}": value for fact, value in _facts(flat[name]).items()}
    (row,) = to_arrow(connection, flat.aggregate(**facts)).to_pylist()
    few = [
        name for name in named if 0 < (row.get(f"distinct_{name}") or 0) <= _FEW and not is_moment(flat[name].type())
    ]
    lists = flat.aggregate(**{name: flat[name].collect(distinct=True) for name in few}) if few else None
    (values,) = to_arrow(connection, lists).to_pylist() if lists is not None else ({},)
    return {
        path: ColumnProfile(
            path,
            flat[name].type(),
            row["rows"],
            row[f"nulls_{name}"] or 0,
            row.get(f"distinct_{name}") or 0,
            row.get(f"low_{name}"),
            row.get(f"high_{name}"),
            tuple(sorted(value for value in values.get(name) or () if value is not None)),
            _examples(connection, flat, name),
            (row.get(f"shortest_{name}") or 0, row.get(f"longest_{name}") or 0),
        )
        for path, name in zip(paths, named, strict=True)
    }


def _facts(value: ir.Value) -> dict[str, ir.Value]:
    """What one query tells of a column; moments may lie beyond what Python can name."""
    dtype = value.type()
    facts: dict[str, ir.Value] = {"nulls": value.isnull().sum()}
    if is_scalar(dtype):
        facts["distinct"] = value.nunique()
    if is_scalar(dtype) and not is_moment(dtype):
        facts |= {"low": value.min(), "high": value.max()}
    if dtype.is_array():
        facts |= {"shortest": value.length().min(), "longest": value.length().max()}
    return facts


def _examples(connection: Backend, flat: ir.Table, name: str) -> tuple[str, ...]:
    """Some distinct texts of a column, from all of its rows."""
    if not is_text(flat[name].type()):
        return ()
    some = flat.filter(flat[name].notnull()).select(value=flat[name]).distinct()
    return tuple(to_arrow(connection, some.order_by(some["value"].hash()).limit(_EXAMPLES))["value"].to_pylist())


def is_moment(dtype: Any) -> bool:
    """Whether a type is that of times or dates."""
    return bool(dtype.is_timestamp() or dtype.is_date())


def is_scalar(dtype: Any) -> bool:
    """Whether a column of a type has one plain value a row: a number, a text, a moment or a condition."""
    return bool(
        dtype.is_numeric() or dtype.is_boolean() or dtype.is_timestamp() or dtype.is_date() or is_text(dtype)
    )  # fmt: skip


def is_text(dtype: Any) -> bool:
    """Whether a type is that of texts, and not of documents."""
    return bool(dtype.is_string() and not dtype.is_json())


def as_written(name: str) -> str:
    """A column's name as expressions write it: between backticks where the language could not read it."""
    plain = name.isascii() and name.isidentifier() and not keyword.iskeyword(name) and name not in _WORDS
    return name if plain else f"`{name}`"


def _leaves(table: ir.Table) -> Iterator[tuple[str, ir.Value]]:
    for name in table.columns:
        if "`" not in name:
            yield from _fields(as_written(name), table[name])


def _fields(path: str, value: ir.Value) -> Iterator[tuple[str, ir.Value]]:
    if not value.type().is_struct():
        yield path, value
        return
    for field in value.type().names:
        if "`" not in field:
            yield from _fields(f"{path}.{as_written(field)}", value[field])
