"""What the columns of a table hold, at a glance: for guessing what they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ibis.expr.types as ir

from features.source.query_engine import Backend, to_arrow

SAMPLED_ROWS = 200_000
_FEW = 12


@dataclass(frozen=True)
class ColumnProfile:
    """A column, or a field of a struct by its `path`: its type, and what its first rows hold."""

    path: str
    dtype: Any
    rows: int
    nulls: int
    distinct: int
    low: Any
    high: Any
    values: tuple[Any, ...]
    """All values, in order, where they are few."""
    separated: float
    """The share of texts with a ``|``."""

    @property
    def name(self) -> str:
        """A plain name for it: the last parts of its path."""
        return self.path.replace(".", "_").replace("`", "").replace(" ", "_")

    @property
    def is_unique(self) -> bool:
        """Whether no two rows share a value."""
        return not self.nulls and self.distinct == self.rows


def profile_table(connection: Backend, table: ir.Table) -> dict[str, ColumnProfile]:
    """The columns of a table by path, structs by their fields, from its first `SAMPLED_ROWS` rows."""
    head = table.limit(SAMPLED_ROWS)
    profiles = {}
    for path, value in _leaves(head):
        flat = head.select(value=value)
        facts: dict[str, Any] = {"rows": flat.count(), "nulls": flat["value"].isnull().sum()}
        scalar = not (value.type().is_array() or value.type().is_map() or value.type().is_binary())
        if scalar:
            facts |= {"distinct": flat["value"].nunique(), "low": flat["value"].min(), "high": flat["value"].max()}
        if value.type().is_string():
            facts["separated"] = flat["value"].contains("|").cast("int64").mean()
        (row,) = to_arrow(connection, flat.aggregate(**facts)).to_pylist()
        few: tuple[Any, ...] = ()
        if scalar and 0 < row["distinct"] <= _FEW:
            few = tuple(sorted(to_arrow(connection, flat.distinct())["value"].drop_null().to_pylist()))
        profiles[path] = ColumnProfile(
            path, value.type(), row["rows"], row["nulls"] or 0, row.get("distinct") or 0, row.get("low"),
            row.get("high"), few, row.get("separated") or 0.0,
        )  # fmt: skip
    return profiles


def _leaves(table: ir.Table) -> Iterator[tuple[str, ir.Value]]:
    for name in table.columns:
        plain = name.isidentifier()
        yield from _fields(name if plain else f"`{name}`", table[name])


def _fields(path: str, value: ir.Value) -> Iterator[tuple[str, ir.Value]]:
    if not value.type().is_struct():
        yield path, value
        return
    for field in value.type().names:
        if field.isidentifier():
            yield from _fields(f"{path}.{field}", value[field])
