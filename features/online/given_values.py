"""The values that a request gives itself: which it may give, and their columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from contract.errors import DataError, RequestError
from contract.hashing import Hashes, hash_array
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from features.encode.moment_values import Value, as_days, as_milliseconds
from features.online.request_values import (
    id_hashes,
    numbers,
    typed_lists,
    vector_numbers,
)

Id = int | str
RequestColumn = Any
"""A checked column [rows] of a request: hashes of ids, numbers in which NaN is null, or lists of ids."""


@dataclass(frozen=True)
class RankRequest:
    """One user, N candidates. Features in the maps override the online tables; `item_features` hold N values each."""

    user: Id | None
    items: Sequence[Id]
    context: Mapping[str, Value] = field(default_factory=dict)
    user_features: Mapping[str, Value] = field(default_factory=dict)
    item_features: Mapping[str, Sequence[Value]] = field(default_factory=dict)


def context_names(schema: Schema) -> set[str]:
    """What the context of a request may hold: features of the context, and the other keys of pairs."""
    return GivenValues(schema).allowed["context"]


class GivenValues:
    """Checks what requests give, for one schema."""

    def __init__(self, schema: Schema) -> None:
        """Work out once which names a request may give for each side."""
        self._schema = schema
        self._specs = {spec.name: spec for spec in schema.features}
        self._keys = {key.name: key for key in schema.keys}
        self._crosses = [s for s in schema.features if isinstance(s, IdSpec) and s.cross]
        self._vectors = _vectors(schema)
        self.allowed = {side: self._names(side) for side in ("user", "item", "context")}

    def _names(self, side: str) -> set[str]:
        """Names that a request may give for a side: its features, and keys that are not the entity's own id."""
        own = {self._schema.user_key, self._schema.item_key}
        keys = {key.name for key in self._schema.keys if key.side == side and key.name not in own}
        uncrossed = [spec for spec in self._schema.features if spec not in self._crosses]
        return keys | {_given_as(spec) for spec in uncrossed if spec.side == side or self._pair_of(spec, side)}

    def _pair_of(self, spec: FeatureSpec, side: str) -> bool:
        part = {"user": "request", "item": "candidate"}.get(side)
        return spec.side == "pair" and self._schema.part_of(spec) == part

    def of(self, request: RankRequest, count: int, check: Callable[[], None]) -> dict[str, RequestColumn]:
        """The request's own values of the user and the items by name, checked.

        Raises:
            RequestError: as `column`, or a column that does not have `count` values.
        """
        given: dict[str, RequestColumn] = {}
        for name, value in request.user_features.items():
            given |= self.columns(name, (value,), "user", f"user_features.{name}")
        for name, column in request.item_features.items():
            where = f"item_features.{name}"
            if len(column) != count:
                message = f"{where} has {len(column)} values for {count} items; send one value per item, in their order"
                raise RequestError(message, field=where)
            check()
            given |= self.columns(name, list(column), "item", where)
        return given

    def columns(self, name: str, values: Sequence[Value], side: str, where: str) -> dict[str, RequestColumn]:
        """One feature's values, checked; a vector gives one column per component.

        Raises:
            RequestError: as `column`.
        """
        if name not in self._vectors or name not in self.allowed[side]:
            return {name: self.column(name, values, side, where)}
        parts = self._vectors[name]
        return dict(zip(parts, vector_numbers(values, len(parts), where), strict=True))

    def column(self, name: str, values: Sequence[Value], side: str, where: str) -> RequestColumn:
        """As `columns`, for all but vectors.

        Raises:
            RequestError: no such feature of this side, or a value that it cannot take.
        """
        if name not in self.allowed[side]:
            allowed = ", ".join(sorted(self.allowed[side])) or "none"
            message = f"{where}: this model has no {side} feature {name!r}; allowed are: {allowed}"
            raise RequestError(message, field=where)
        spec = self._specs.get(name)
        moment = (spec or self._keys[name]).moment
        if moment:
            is_number = isinstance(spec, DenseSpec)
            values = as_milliseconds(values, where) if is_number else as_days(values, where)
        if isinstance(spec, DenseSpec):
            return numbers(values, where)
        if isinstance(spec, IdSpec) and spec.kind == "id_list":
            return typed_lists(values, spec.dtype, where)
        kind = spec.dtype if isinstance(spec, IdSpec) else self._keys[name].dtype
        return id_hashes(values, kind, where)

    def as_key(self, name: str, given: RequestColumn) -> Hashes:
        """The hashes of a checked column that keys tables.

        Raises:
            RequestError: fractions, which are not keys.
        """
        if not isinstance(self._specs.get(name), DenseSpec):
            return given
        try:
            return hash_array(pa.array(given, from_pandas=True), name)
        except DataError as error:
            raise RequestError(str(error), field=name) from error


def _given_as(spec: FeatureSpec) -> str:
    """The name under which requests give a feature."""
    return spec.vector or spec.name if isinstance(spec, DenseSpec) else spec.name


def _vectors(schema: Schema) -> dict[str, list[str]]:
    """The features of each vector, in its order."""
    vectors: dict[str, list[str]] = {}
    for spec in schema.features:
        if isinstance(spec, DenseSpec) and spec.vector:
            vectors.setdefault(spec.vector, []).append(spec.name)
    return vectors


def beyond(spec: FeatureSpec, given: RequestColumn) -> int:
    """How many given numbers lie beyond what training saw."""
    if not isinstance(spec, DenseSpec):
        return 0
    lowest, highest = spec.range
    return int(np.count_nonzero((given < lowest) | (given > highest)))
