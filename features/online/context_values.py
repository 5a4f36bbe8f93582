"""The context of requests, encoded once per value: surfaces, hours and the like come again and again."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from contract.errors import DataError, RequestError
from contract.hashing import NULL_HASH
from contract.inputs import PartName
from contract.schema import DenseSpec, IdSpec, Schema
from features.encode.encoder import Encoder, refuse_by_policy, refuse_nulls
from features.encode.moment_values import Value
from features.online.given_values import GivenValues, RequestColumn, beyond
from features.online.request_columns import Columns, Layout
from features.point_in_time.ragged import Ragged

MOST_KEPT = 4096
"""Values that are kept; when there are more, all are forgotten."""
LONGEST_KEPT = 64
"""Characters of a text that is kept."""
_KEPT_TYPES = frozenset({int, float, bool, str, type(None)})


class ContextColumn(NamedTuple):
    """One feature's value: as it was `given` [1], and, of an id or a number, `encoded`."""

    name: str
    given: RequestColumn
    encoded: int | float | None
    clipped: int
    """1 if the number lay beyond what training saw."""
    unseen: bool
    """Whether it is an id that training never saw."""


class ContextValues:
    """Encodes the context's values for one schema; safe to share between threads."""

    def __init__(self, schema: Schema, encoder: Encoder, given: GivenValues) -> None:
        """Work out once what the context may hold."""
        self._encoder, self._given = encoder, given
        self._specs = {spec.name: spec for spec in schema.features}
        self._features = [
            s for s in schema.features if s.side == "context" and not (isinstance(s, IdSpec) and bool(s.cross))
        ]
        self.names = tuple(spec.name for spec in self._features)
        """Features of the context."""
        self._part_of: dict[str, PartName] = {spec.name: schema.part_of(spec) for spec in schema.features}
        self._required = frozenset(spec.name for spec in self._features if spec.refuse_null)
        self._kept: dict[tuple[str, type, Value], tuple[ContextColumn, ...]] = {}

    def fill_nulls(self, layouts: dict[PartName, Layout]) -> None:
        """A feature that a request does not give is null."""
        for spec in self._features:
            layout = layouts[self._part_of[spec.name]]
            if isinstance(spec, DenseSpec):
                layout.dense[:, layout.place[spec.name]] = self._encoder.dense(spec, pa.nulls(1))
            elif spec.kind == "id":
                layout.ids[:, layout.place[spec.name]] = self._encoder.ids(spec, pa.nulls(1))

    def of(self, name: str, value: Value) -> tuple[ContextColumn, ...]:
        """A value of the context; a vector gives one column per component.

        Raises:
            RequestError: no such feature of the context, or a value that it cannot take.
        """
        kind = type(value)
        if kind not in _KEPT_TYPES or (kind is str and len(value) > LONGEST_KEPT):
            return self._encoded(name, value)
        key = (name, kind, value)
        columns = self._kept.get(key)
        if columns is None:
            columns = self._encoded(name, value)
            if len(self._kept) >= MOST_KEPT:
                self._kept = {}
            self._kept[key] = columns
        return columns

    def require(self, given: Iterable[str]) -> None:
        """Refuse a request that leaves out what the recipe wants of each.

        Raises:
            RequestError: naming the feature.
        """
        for name in self._required.difference(given):
            spec = self._specs[name]
            null = (
                np.full(1, np.nan)
                if isinstance(spec, DenseSpec)
                else self._given.column(name, (None,), "context", name)
            )
            if self._column(name, null).encoded is None and isinstance(spec, IdSpec):
                lists_of(self._encoder, spec, null)

    def copy(self, column: ContextColumn, columns: dict[PartName, Columns]) -> None:
        """Put a value into the columns of its part."""
        spec = self._specs.get(column.name)
        if spec is None:
            return
        target = columns[self._part_of[column.name]]
        if isinstance(spec, IdSpec) and spec.kind == "id_list":
            target.lists[column.name] = lists_of(self._encoder, spec, column.given)
        elif column.encoded is not None:
            matrix = target.dense if isinstance(spec, DenseSpec) else target.ids
            matrix[:, target.layout.place[column.name]] = column.encoded

    def _encoded(self, name: str, value: Value) -> tuple[ContextColumn, ...]:
        columns = self._given.columns(name, (value,), "context", f"context.{name}")
        return tuple(self._column(each, given) for each, given in columns.items())

    def _column(self, name: str, given: RequestColumn) -> ContextColumn:
        spec = self._specs.get(name)
        if spec is None or (isinstance(spec, IdSpec) and spec.kind == "id_list"):
            return ContextColumn(name, given, None, 0, unseen=False)
        try:
            if isinstance(spec, DenseSpec):
                refuse_nulls(spec, np.isnan(given))
                number = float(self._encoder.numbers(spec, given)[0])
                return ContextColumn(name, given, number, beyond(spec, given), unseen=False)
            refuse_nulls(spec, given == NULL_HASH)
            row = int(self._encoder.rows(spec, given)[0])
        except DataError as error:
            raise RequestError(str(error), field=name) from error
        # Rows below these stand for nulls and for whatever has no row of its own.
        strange = row < 1 + spec.null_row + spec.unknown_rows
        known = spec.encoding != "vocabulary" or given[0] == NULL_HASH
        return ContextColumn(name, given, row, 0, unseen=strange and not known)


def lists_of(encoder: Encoder, spec: IdSpec, given: RequestColumn) -> Ragged:
    """Given lists, encoded.

    Raises:
        RequestError: they are null, and the recipe refuses that.
    """
    try:
        refuse_by_policy(spec, given)
        return encoder.lists(spec, given)
    except DataError as error:
        raise RequestError(str(error), field=spec.name) from error
