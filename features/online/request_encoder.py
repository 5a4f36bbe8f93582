"""A ranking request with raw names to model inputs: hash the keys, look rows up, encode what the request overrides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataError, RequestError
from contract.graph_names import ONLINE_FOLDER
from contract.hashing import NULL_HASH, Hashes, combine, hash_array, hash_integers
from contract.inputs import PARTS, Inputs, PartName
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from features.encode.encoder import Encoder, refuse_by_policy, refuse_nulls
from features.encode.vocabulary import Vocabularies
from features.online.online_table import Lookup, OnlineTable, OnlineTables
from features.online.request_columns import Columns, Layout, PairGroup, Route
from features.online.request_values import (
    Value,
    as_days,
    as_milliseconds,
    id_hashes,
    numbers,
    typed_lists,
    vector_numbers,
)

Id = int | str
Given = Any
"""A checked column [rows] of a request: hashes of ids, numbers in which NaN is null, or lists of ids."""


@dataclass(frozen=True)
class RankRequest:
    """One user, N candidates. Features in the maps override the online tables; `item_features` hold N values each."""

    user: Id | None
    items: Sequence[Id]
    context: Mapping[str, Value] = field(default_factory=dict)
    user_features: Mapping[str, Value] = field(default_factory=dict)
    item_features: Mapping[str, Sequence[Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedRequest:
    """Inputs with one request row and N candidate rows, and who was unknown: `unknown_items` bool [N].

    `missing_context` names features of the context that the request left out, `unseen_context` those whose id training
    never saw, and `clipped` counts, by feature, the given numbers beyond what training saw: they count as its extremes.
    """

    inputs: Inputs
    unknown_user: bool
    unknown_items: NDArray[np.bool_]
    missing_context: tuple[str, ...] = ()
    unseen_context: tuple[str, ...] = ()
    clipped: Mapping[str, int] = field(default_factory=dict)


def _no_check() -> None:
    """Nobody waits."""


class RequestEncoder:
    """Turns requests into inputs for one schema and its online tables; safe to share between threads."""

    def __init__(
        self,
        schema: Schema,
        encoder: Encoder,
        tables: OnlineTables,
        users: Callable[[OnlineTable], Lookup] | None = None,
    ) -> None:
        """Work out once which table columns go to which input columns, and what a context that is not given means.

        `users` makes, from the table of users, what is asked in its place.
        """
        self._schema, self._encoder = schema, encoder
        self._specs = {spec.name: spec for spec in schema.features}
        self._keys = {key.name: key for key in schema.keys}
        self._context_keys = tuple(key.name for key in schema.keys if key.side == "context")
        self._part_of: dict[str, PartName] = {spec.name: schema.part_of(spec) for spec in schema.features}
        self._layouts: dict[PartName, Layout] = {name: Layout(schema.part(name)) for name in PARTS}
        self._vectors = _vectors(schema)
        self._crosses = [s for s in schema.features if isinstance(s, IdSpec) and s.cross]
        self._own_ids = self._keys_with_rows_for_anything()
        self._context = [s for s in schema.features if s.side == "context" and s not in self._crosses]
        self._context_names = tuple(spec.name for spec in self._context)
        self._context_ids = tuple(
            s for s in self._context if isinstance(s, IdSpec) and s.kind == "id" and s.encoding == "vocabulary"
        )
        self._required = frozenset(spec.name for spec in self._context if spec.refuse_null)
        self._fill_nulls()
        self._allowed = {side: self._names(side) for side in ("user", "item", "context")}
        user = tables.user if tables.user is None or users is None else users(tables.user)
        entities: dict[PartName, Lookup | None] = {"request": user, "candidate": tables.item}
        self._entities = {
            part: None if table is None else Route(table, self._layouts[part]) for part, table in entities.items()
        }
        self._groups = self._pair_groups(tables)

    @classmethod
    def open(cls, directory: Path, users: Callable[[OnlineTable], Lookup] | None = None) -> Self:
        """The encoder of a features directory or a bundle: its schema, vocabularies and online tables.

        Raises:
            DataError: a file is missing.
            IntegrityError: the vocabulary is not the schema's.
        """
        schema = Schema.load(directory)
        vocabularies = Vocabularies.load(directory, schema.vocabulary_tables(), schema.vocabulary_sha256)
        return cls(schema, Encoder(schema, vocabularies), OnlineTables.open(directory / ONLINE_FOLDER), users)

    @property
    def schema(self) -> Schema:
        """The schema that the inputs follow."""
        return self._schema

    def encode(self, request: RankRequest, check: Callable[[], None] = _no_check) -> EncodedRequest:
        """Encode a request. `check` is called between the steps, none of which takes long, and may raise.

        Raises:
            RequestError: no candidates, an id of the wrong type, an unknown feature, a value that is not finite or of
                the wrong type, or a column whose length is not N.
        """
        count = len(request.items)
        if count == 0:
            message = "items is empty; send at least one candidate to rank"
            raise RequestError(message, field="items")
        columns = {name: Columns(self._layouts[name], count if name == "candidate" else 1) for name in PARTS}
        hashes = {
            self._schema.user_key: self._key_hashes(self._schema.user_key, (request.user,), "user"),
            self._schema.item_key: self._key_hashes(self._schema.item_key, request.items, "items"),
        }
        own = dict(hashes)
        known_user = self._fill_entity("request", self._schema.user_key, hashes, columns)
        known_items = self._fill_entity("candidate", self._schema.item_key, hashes, columns)
        for spec in self._own_ids:
            self._fill_feature(spec, own[spec.name], columns)
        check()
        given = self._given(request, count, check)
        missing = tuple(name for name in self._context_names if given.get(name) is None)
        hashes |= dict.fromkeys(self._context_keys, np.full(1, NULL_HASH))
        hashes |= {name: self._as_key(name, value) for name, value in given.items() if name in self._keys}
        self._fill_pairs(hashes, columns)
        self._fill_crosses(hashes, columns)
        for name in self._required - given.keys():
            is_number = isinstance(self._specs[name], DenseSpec)
            given[name] = np.full(1, np.nan) if is_number else self._column(name, (None,), "context", name)
        clipped: dict[str, int] = {}
        for name, value in given.items():
            if name in self._specs:
                check()
                self._fill_feature(self._specs[name], value, columns)
                if beyond := _beyond(self._specs[name], value):
                    clipped[name] = beyond
        unseen = tuple(spec.name for spec in self._context_ids if self._is_unseen(spec, given, columns))
        inputs = Inputs(columns["request"].inputs(), columns["candidate"].inputs())
        return EncodedRequest(inputs, not bool(known_user.all()), ~known_items, missing, unseen, clipped)

    def _is_unseen(self, spec: IdSpec, given: Mapping[str, Given], columns: Mapping[PartName, Columns]) -> bool:
        """Whether the request gives an id of the context that training never saw."""
        if spec.name not in given or given[spec.name][0] == NULL_HASH:
            return False
        part = columns[self._part_of[spec.name]]
        # Rows below these stand for nulls and for whatever has no row of its own.
        return int(part.ids[0, part.layout.place[spec.name]]) < 1 + spec.null_row + spec.unknown_rows

    def _fill_nulls(self) -> None:
        """A feature of the context that a request does not give is null."""
        for spec in self._context:
            layout = self._layouts[self._part_of[spec.name]]
            if isinstance(spec, DenseSpec):
                layout.dense[:, layout.place[spec.name]] = self._encoder.dense(spec, pa.nulls(1))
            elif spec.kind == "id":
                layout.ids[:, layout.place[spec.name]] = self._encoder.ids(spec, pa.nulls(1))

    def _keys_with_rows_for_anything(self) -> list[IdSpec]:
        """Keys whose unknown values have rows of their own take them from the request, not from what nobody has."""
        keys = (self._specs.get(key) for key in (self._schema.user_key, self._schema.item_key))
        return [s for s in keys if isinstance(s, IdSpec) and (s.encoding == "hash" or s.unknown_rows)]

    def _pair_groups(self, tables: OnlineTables) -> tuple[PairGroup, ...]:
        members: dict[tuple[PartName, int], list[tuple[str, ...]]] = {}
        for keys in tables.pairs:
            on_items = any(self._keys[key].side == "item" for key in keys)
            members.setdefault(("candidate" if on_items else "request", len(keys)), []).append(keys)
        return tuple(
            PairGroup(part, self._layouts[part], {keys: tables.pairs[keys] for keys in group})
            for (part, _), group in members.items()
        )

    def _names(self, side: str) -> set[str]:
        """Names that a request may give for a side: its features, and keys that are not the entity's own id."""
        own = {self._schema.user_key, self._schema.item_key}
        keys = {key.name for key in self._schema.keys if key.side == side and key.name not in own}
        mine = [spec for spec in self._schema.features if spec not in self._crosses]
        return keys | {_given_as(spec) for spec in mine if spec.side == side or self._pair_of(spec, side)}

    def _pair_of(self, spec: FeatureSpec, side: str) -> bool:
        part = {"user": "request", "item": "candidate"}.get(side)
        return spec.side == "pair" and self._schema.part_of(spec) == part

    def _key_hashes(self, key: str, values: Sequence[Id | None], where: str) -> Hashes:
        if not key:
            return np.zeros(len(values), dtype=np.uint64)
        return id_hashes(values, self._keys[key].dtype, where)

    def _fill_entity(
        self, part: PartName, key: str, hashes: dict[str, Hashes], columns: Mapping[PartName, Columns]
    ) -> NDArray[np.bool_]:
        """Look an entity up by its own hashes [n]; its attributes that key pair tables join `hashes`."""
        route = self._entities[part]
        if route is None:
            return np.ones(len(hashes[key]), dtype=np.bool_)
        found = route.table.lookup(hashes[key])
        route.copy(found, columns[part])
        hashes |= {name: found.key_hashes[:, place] for place, name in enumerate(route.table.key_names)}
        return found.known

    def _given(self, request: RankRequest, count: int, check: Callable[[], None]) -> dict[str, Given]:
        """The request's own values by name, checked."""
        given: dict[str, Given] = {}
        for side, where, values in (
            ("context", "context", request.context),
            ("user", "user_features", request.user_features),
        ):
            for name, value in values.items():
                given |= self._columns(name, (value,), side, f"{where}.{name}")
        for name, column in request.item_features.items():
            where = f"item_features.{name}"
            if len(column) != count:
                message = f"{where} has {len(column)} values for {count} items; send one value an item, in their order"
                raise RequestError(message, field=where)
            check()
            given |= self._columns(name, list(column), "item", where)
        return given

    def _columns(self, name: str, values: Sequence[Value], side: str, where: str) -> dict[str, Given]:
        if name not in self._vectors or name not in self._allowed[side]:
            return {name: self._column(name, values, side, where)}
        parts = self._vectors[name]
        return dict(zip(parts, vector_numbers(values, len(parts), where), strict=True))

    def _column(self, name: str, values: Sequence[Value], side: str, where: str) -> Given:
        if name not in self._allowed[side]:
            allowed = ", ".join(sorted(self._allowed[side])) or "none"
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

    def _as_key(self, name: str, given: Given) -> Hashes:
        if not isinstance(self._specs.get(name), DenseSpec):
            return given
        try:
            return hash_array(pa.array(given, from_pandas=True), name)
        except DataError as error:
            raise RequestError(str(error), field=name) from error

    def _fill_pairs(self, hashes: Mapping[str, Hashes], columns: Mapping[PartName, Columns]) -> None:
        for group in self._groups:
            target = columns[group.part]
            words = np.empty((len(group.keys[0]), len(group.keys), target.rows), dtype=np.uint64)
            for table, keys in enumerate(group.keys):
                for place, key in enumerate(keys):
                    words[place, table] = hashes[key]
            group.copy(words, target)

    def _fill_crosses(self, hashes: Mapping[str, Hashes], columns: Mapping[PartName, Columns]) -> None:
        for spec in self._crosses:
            together = combine([hashes[key] for key in spec.keys])
            values = np.where(together == NULL_HASH, NULL_HASH, hash_integers(together.view(np.int64)))
            target = columns[self._part_of[spec.name]]
            target.ids[:, target.layout.place[spec.name]] = self._encoder.rows(spec, values)

    def _fill_feature(self, spec: FeatureSpec, given: Given, columns: Mapping[PartName, Columns]) -> None:
        target = columns[self._part_of[spec.name]]
        try:
            if isinstance(spec, DenseSpec):
                refuse_nulls(spec, np.isnan(given))
                target.dense[:, target.layout.place[spec.name]] = self._encoder.numbers(spec, given)
            elif spec.kind == "id":
                refuse_nulls(spec, given == NULL_HASH)
                target.ids[:, target.layout.place[spec.name]] = self._encoder.rows(spec, given)
            else:
                refuse_by_policy(spec, given)
                target.lists[spec.name] = self._encoder.lists(spec, given)
        except DataError as error:
            raise RequestError(str(error), field=spec.name) from error


def _beyond(spec: FeatureSpec, given: Given) -> int:
    """How many given numbers lie beyond what training saw."""
    if not isinstance(spec, DenseSpec):
        return 0
    lowest, highest = spec.range
    return int(np.count_nonzero((given < lowest) | (given > highest)))


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
