"""A ranking request with raw names to model inputs: hash the keys, look rows up, encode what the request overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.encoding import Encoder, Lists, refuse_by_policy
from features.errors import DataError, RequestError
from features.hashing import NULL_HASH, Hashes, combine, hash_array
from features.inputs import Inputs, PartInputs, PartName
from features.online import ONLINE_FOLDER, OnlineTable, OnlineTables
from features.schema import DenseSpec, FeatureSpec, IdSpec, Part, Schema
from features.vocabulary import Vocabularies

Id = int | str
Value = Any
"""A number, a string, a boolean, None, or a list of these, as it came over the wire."""


@dataclass(frozen=True)
class RankRequest:
    """One user, N candidates. Features in the maps override the online tables; `item_features` hold N values each."""

    user: Id | None
    items: Sequence[Id]
    context: Mapping[str, Value] = field(default_factory=dict)
    user_features: Mapping[str, Value] = field(default_factory=dict)
    item_features: Mapping[str, Sequence[Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """Inputs with one request row and N candidate rows, and who was unknown: `unknown_items` bool [N]."""

    inputs: Inputs
    unknown_user: bool
    unknown_items: NDArray[np.bool_]


@dataclass
class _Columns:
    """A part under assembly: matrices to fill by column name, and lists by name."""

    part: Part
    rows: int

    def __post_init__(self) -> None:
        self.ids = np.zeros((self.rows, len(self.part.ids)), dtype=np.int64)
        self.dense = np.zeros((self.rows, len(self.part.dense)), dtype=np.float32)
        empty = Lists(np.zeros(0, dtype=np.int32), np.zeros(self.rows, dtype=np.int64))
        self.lists = {spec.name: empty for spec in self.part.lists}
        self.place = {spec.name: i for i, spec in enumerate(self.part.ids)}
        self.place |= {spec.name: i for i, spec in enumerate(self.part.dense)}

    def inputs(self) -> PartInputs:
        """The finished part."""
        lists = [self.lists[spec.name] for spec in self.part.lists]
        return PartInputs(
            self.ids,
            np.concatenate([x.values for x in lists]).astype(np.int64) if lists else np.zeros(0, dtype=np.int64),
            np.stack([x.lengths for x in lists]) if lists else np.zeros((0, self.rows), dtype=np.int64),
            self.dense,
        )


class RequestEncoder:
    """Turns requests into inputs for one schema and its online tables; safe to share between threads."""

    def __init__(self, schema: Schema, encoder: Encoder, tables: OnlineTables) -> None:
        """Work out once which table columns go to which input columns."""
        self._schema, self._encoder, self._tables = schema, encoder, tables
        self._specs = {spec.name: spec for spec in schema.features}
        self._keys = {key.name: key for key in schema.keys}
        self._parts: dict[PartName, Part] = {"request": schema.request, "candidate": schema.candidate}
        self._crosses = [s for s in schema.features if isinstance(s, IdSpec) and s.cross]
        self._allowed = {side: self._names(side) for side in ("user", "item", "context")}

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The encoder of a features directory or a bundle: its schema, vocabularies and online tables.

        Raises:
            DataError: a file is missing.
            IntegrityError: the vocabulary is not the schema's.
        """
        schema = Schema.load(directory)
        vocabularies = Vocabularies.load(directory, schema.vocabulary_tables(), schema.vocabulary_sha256)
        return cls(schema, Encoder(schema, vocabularies), OnlineTables.open(directory / ONLINE_FOLDER))

    @property
    def schema(self) -> Schema:
        """The schema that the inputs follow."""
        return self._schema

    def encode(self, request: RankRequest) -> Encoded:
        """Encode a request.

        Raises:
            RequestError: no candidates, an id of the wrong type, an unknown feature, a value that is not finite or of
                the wrong type, or a column whose length is not N.
        """
        count = len(request.items)
        if count == 0:
            message = "items is empty; send at least one candidate to rank"
            raise RequestError(message, field="items")
        columns = {name: _Columns(part, count if name == "candidate" else 1) for name, part in self._parts.items()}
        user = self._key_hashes(self._schema.user_key, [request.user], "user")
        items = self._key_hashes(self._schema.item_key, list(request.items), "items")
        known_user = self._fill_entity(self._tables.user, user, columns["request"])
        known_items = self._fill_entity(self._tables.item, items, columns["candidate"])
        self._fill_own_ids(request, columns)
        overrides = self._overrides(request, count)
        hashes = self._pair_hashes(user, items, overrides)
        self._fill_pairs(hashes, columns)
        self._fill_crosses(hashes, columns)
        for name, values in overrides.items():
            if name in self._specs:
                self._fill_feature(self._specs[name], values, columns)
        for name in self._allowed["context"] - overrides.keys():
            if name in self._specs:
                self._fill_feature(self._specs[name], pa.nulls(1), columns)
        inputs = Inputs(columns["request"].inputs(), columns["candidate"].inputs())
        return Encoded(inputs, not bool(known_user.all()), ~known_items)

    def _names(self, side: str) -> set[str]:
        """Names that a request may give for a side: its features, and keys that are not the entity's own id."""
        own = {self._schema.user_key, self._schema.item_key}
        keys = {key.name for key in self._schema.keys if key.side == side and key.name not in own}
        mine = [spec for spec in self._schema.features if spec not in self._crosses]
        return keys | {spec.name for spec in mine if spec.side == side or self._pair_of(spec, side)}

    def _pair_of(self, spec: FeatureSpec, side: str) -> bool:
        part = {"user": "request", "item": "candidate"}.get(side)
        return spec.side == "pair" and self._schema.part_of(spec) == part

    def _key_hashes(self, key: str, values: list[Id | None], where: str) -> Hashes:
        if not key:
            return np.zeros(len(values), dtype=np.uint64)
        return hash_array(_typed_ids(values, self._keys[key].dtype, where))

    def _fill_entity(self, table: OnlineTable | None, hashes: Hashes, columns: _Columns) -> NDArray[np.bool_]:
        if table is None:
            return np.ones(len(hashes), dtype=np.bool_)
        rows, known = table.find(hashes)
        self._copy(table, rows, columns)
        return known

    def _fill_own_ids(self, request: RankRequest, columns: Mapping[PartName, _Columns]) -> None:
        """Keys whose unknown values have rows of their own take them from the request, not from what nobody has."""
        for key, values in ((self._schema.user_key, [request.user]), (self._schema.item_key, list(request.items))):
            spec = self._specs.get(key)
            if isinstance(spec, IdSpec) and (spec.encoding == "hash" or spec.unknown_rows):
                self._fill_feature(spec, _typed_ids(values, spec.dtype, key), columns)

    def _copy(self, table: OnlineTable, rows: NDArray[np.int64], columns: _Columns) -> None:
        """Copy the looked-up rows [n] of a table into the columns of the part, one row serving all if n is 1."""
        if table.id_names:
            columns.ids[:, [columns.place[n] for n in table.id_names]] = table.ids[rows]
        if table.dense_names:
            columns.dense[:, [columns.place[n] for n in table.dense_names]] = table.dense[rows]
        for name, column in table.lists.items():
            columns.lists[name] = Lists(*column.take(rows))

    def _overrides(self, request: RankRequest, count: int) -> dict[str, pa.Array]:
        """The request's own values as Arrow columns by name, checked."""
        given: dict[str, pa.Array] = {}
        for side, where, values in (
            ("context", "context", request.context),
            ("user", "user_features", request.user_features),
        ):
            for name, value in values.items():
                given[name] = self._column(name, [value], side, f"{where}.{name}")
        for name, column in request.item_features.items():
            where = f"item_features.{name}"
            if len(column) != count:
                message = f"{where} has {len(column)} values for {count} items; send one value an item, in their order"
                raise RequestError(message, field=where)
            given[name] = self._column(name, list(column), "item", where)
        return given

    def _column(self, name: str, values: list[Value], side: str, where: str) -> pa.Array:
        if name not in self._allowed[side]:
            allowed = ", ".join(sorted(self._allowed[side])) or "none"
            message = f"{where}: this model has no {side} feature {name!r}; allowed are: {allowed}"
            raise RequestError(message, field=where)
        spec = self._specs.get(name)
        if isinstance(spec, DenseSpec):
            return _typed_numbers(values, where)
        if isinstance(spec, IdSpec) and spec.kind == "id_list":
            return _typed_lists(values, spec.dtype, where)
        kind = spec.dtype if isinstance(spec, IdSpec) else self._keys[name].dtype
        return _typed_ids(values, kind, where)

    def _pair_hashes(self, user: Hashes, items: Hashes, given: dict[str, pa.Array]) -> dict[str, Hashes]:
        """The hashes of every key that pair tables hang on: ids, attributes from tables, and the request's own."""
        hashes = {self._schema.user_key: user, self._schema.item_key: items}
        for table, own in ((self._tables.user, user), (self._tables.item, items)):
            if table is not None and table.key_names:
                rows, _ = table.find(own)
                hashes |= {name: table.key_hashes[rows, place] for place, name in enumerate(table.key_names)}
        for name, key in self._keys.items():
            if name in given:
                hashes[name] = hash_array(given[name])
            elif key.side == "context":
                hashes[name] = np.full(1, NULL_HASH)
        return hashes

    def _fill_pairs(self, hashes: dict[str, Hashes], columns: Mapping[PartName, _Columns]) -> None:
        for keys, table in self._tables.pairs.items():
            parts = np.broadcast_arrays(*[hashes[key] for key in keys])
            rows, _ = table.find(combine([np.asarray(part) for part in parts]))
            on_items = any(self._keys[key].side == "item" for key in keys)
            self._copy(table, rows, columns["candidate" if on_items else "request"])

    def _fill_crosses(self, hashes: dict[str, Hashes], columns: Mapping[PartName, _Columns]) -> None:
        for spec in self._crosses:
            parts = np.broadcast_arrays(*[hashes[key] for key in spec.keys])
            together = combine([np.asarray(part) for part in parts])
            target = columns[self._schema.part_of(spec)]
            values = pa.array(together, mask=together == NULL_HASH)
            target.ids[:, target.place[spec.name]] = self._encoder.ids(spec, values)

    def _fill_feature(self, spec: FeatureSpec, values: pa.Array, columns: Mapping[PartName, _Columns]) -> None:
        target = columns[self._schema.part_of(spec)]
        try:
            refuse_by_policy(spec, values)
            if isinstance(spec, DenseSpec):
                target.dense[:, target.place[spec.name]] = self._encoder.dense(spec, values)
            elif spec.kind == "id":
                target.ids[:, target.place[spec.name]] = self._encoder.ids(spec, values)
            else:
                target.lists[spec.name] = self._encoder.lists(spec, values)
        except DataError as error:
            raise RequestError(str(error), field=spec.name) from error


def _typed_ids(values: Sequence[Value], kind: str, where: str) -> pa.Array:
    """Ids as one Arrow array of the schema's type.

    Whole numbers given as text, or texts given as whole numbers, are refused by name rather than treated as unknown.
    """
    wanted: tuple[type, ...] = (str,) if kind == "string" else (int,)
    for value in values:
        if value is not None and not isinstance(value, wanted):
            seen = f"{type(value).__name__} {value!r}"[:80]
            message = f"{where} must be {'a string' if kind == 'string' else 'an integer'}, but got {seen}"
            raise RequestError(message, field=where)
    try:
        return pa.array(values, type=pa.string() if kind == "string" else pa.int64())
    except (pa.ArrowInvalid, OverflowError) as error:
        message = f"{where}: an id is outside the range of 64-bit integers"
        raise RequestError(message, field=where) from error


def _typed_lists(values: Sequence[Value], kind: str, where: str) -> pa.Array:
    for value in values:
        if value is not None and not isinstance(value, list | tuple):
            message = f"{where} must be a list of ids, but got {type(value).__name__} {value!r}"[:160]
            raise RequestError(message, field=where)
    flat = _typed_ids([element for value in values for element in (value or ())], kind, where)
    offsets = np.concatenate([[0], np.cumsum([len(value or ()) for value in values])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def _typed_numbers(values: Sequence[Value], where: str) -> pa.Array:
    for value in values:
        if value is not None and not isinstance(value, int | float):
            message = f"{where} must be a number, but got {type(value).__name__} {value!r}"[:160]
            raise RequestError(message, field=where)
    try:
        numbers = pa.array(values, type=pa.float64())
    except (pa.ArrowInvalid, OverflowError) as error:
        message = f"{where}: a number is too large"
        raise RequestError(message, field=where) from error
    if not np.isfinite(numbers.drop_null().to_numpy()).all():
        message = f"{where} must be finite, but got NaN or infinity; leave it out if it is not known"
        raise RequestError(message, field=where)
    return numbers
