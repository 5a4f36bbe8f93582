"""A ranking request with raw names to model inputs: hash the keys, look rows up, encode what the request overrides."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, RequestError
from contract.graph_names import ONLINE_FOLDER
from contract.hashing import NULL_HASH, Hashes, combine, hash_integers
from contract.inputs import PARTS, Inputs, PartName
from contract.prepared import without
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from features.encode.encoder import Encoder, refuse_nulls
from features.encode.vocabulary import Vocabularies
from features.online.context_values import ContextValues, lists_of
from features.online.encoded_request import EncodedRequest
from features.online.given_values import GivenValues, Id, RankRequest, RequestColumn, beyond
from features.online.online_table import Arrays, Lookup, OnlineTable, OnlineTables, RowsOf, mapped_array
from features.online.pushed_values import PushedColumn, PushedSource, spliced
from features.online.request_columns import Columns, Layout, PairGroup, Route
from features.online.request_values import id_hashes

__all__ = ["EncodedRequest", "RankRequest", "RequestEncoder", "no_check"]
Rows = slice | NDArray[np.int64]
EVERY_ROW = slice(None)
_NULL = np.full(1, NULL_HASH)
_NULL.flags.writeable = False


def no_check() -> None:
    """Nobody waits."""


class RequestEncoder:
    """Turns requests into inputs for one schema and its online tables; safe to share between threads."""

    def __init__(
        self,
        schema: Schema,
        encoder: Encoder,
        tables: OnlineTables,
        users: Callable[[OnlineTable], Lookup] | None = None,
        *,
        rows_of: Collection[str] = (),
    ) -> None:
        """Work out once which table columns go to which input columns, and what a context that is not given means.

        `users` makes, from the table of users, what is asked in its place. Of the tables `rows_of` only rows are looked
        up.
        """
        self._schema, self._encoder, self._tables, self._users = schema, encoder, tables, users
        self._rows_of = frozenset(rows_of)
        self._specs = {spec.name: spec for spec in schema.features}
        self._keys = {key.name: key for key in schema.keys}
        own = {schema.user_key, schema.item_key}
        self._other_keys = tuple(key.name for key in schema.keys if key.name not in own)
        self._part_of: dict[str, PartName] = {spec.name: schema.part_of(spec) for spec in schema.features}
        self._layouts: dict[PartName, Layout] = {name: Layout(schema.part(name)) for name in PARTS}
        self._crosses = [s for s in schema.features if isinstance(s, IdSpec) and s.cross]
        self._own_ids = self._keys_with_rows_for_anything()
        self._given = GivenValues(schema)
        self._context = ContextValues(schema, encoder, self._given)
        self._context.fill_nulls(self._layouts)
        user: Lookup | None = tables.user if tables.user is None or users is None else users(tables.user)
        user = RowsOf(tables.user) if "user" in self._rows_of and tables.user is not None else user
        item = RowsOf(tables.item) if "item" in self._rows_of and tables.item is not None else tables.item
        entities: dict[PartName, Lookup | None] = {"request": user, "candidate": item}
        self._entities = {
            part: None if table is None else Route(table, self._layouts[part]) for part, table in entities.items()
        }
        self._groups = self._pair_groups(tables)

    @classmethod
    def open(
        cls,
        directory: Path,
        users: Callable[[OnlineTable], Lookup] | None = None,
        arrays: Arrays = mapped_array,
        like: "RequestEncoder | None" = None,
    ) -> Self:
        """The encoder of a features directory or a bundle: its schema, vocabularies and online tables.

        The tables' arrays come from `arrays`; the vocabularies are those of the encoder `like` where they are the same.

        Raises:
            DataError: a file is missing.
            IntegrityError: the vocabulary is not the schema's.
        """
        schema = Schema.load(directory)
        if like is not None and like.schema.vocabulary_sha256 == schema.vocabulary_sha256:
            vocabularies = like.encoder.vocabularies
        else:
            vocabularies = Vocabularies.load(directory, schema.vocabulary_tables(), schema.vocabulary_sha256)
        return cls(schema, Encoder(schema, vocabularies), OnlineTables.open(directory / ONLINE_FOLDER, arrays), users)

    def lean(self, names: Collection[str], rows_of: Collection[str]) -> "RequestEncoder":
        """An encoder without the features `names`: it says the rows of the tables `rows_of`."""
        schema = without(self._schema, names)
        return RequestEncoder(schema, self._encoder, self._tables, self._users, rows_of=rows_of)

    @property
    def tables(self) -> OnlineTables:
        """Where ids are looked up."""
        return self._tables

    @property
    def encoder(self) -> Encoder:
        """What encodes single values."""
        return self._encoder

    @property
    def schema(self) -> Schema:
        """The schema that the inputs follow."""
        return self._schema

    def encode(
        self, request: RankRequest, check: Callable[[], None] = no_check, pushed: PushedSource | None = None
    ) -> EncodedRequest:
        """Encode a request. `check` is called between the steps, none of which takes long, and may raise.

        Values of `pushed` replace those of the tables, and the request's own replace both.

        Raises:
            RequestError: no candidates, an id of the wrong type, an unknown feature, a value that is not finite or of
                the wrong type, or a column whose length is not N.
        """
        count = len(request.items)
        if count == 0:
            message = "items is empty; send at least one candidate to rank"
            raise RequestError(message, field="items")
        columns = {name: Columns(self._layouts[name], count if name == "candidate" else 1) for name in PARTS}
        hashes, known_user, known_items = self._fill_entities(request, columns)
        check()
        if pushed is None and not (request.context or request.user_features or request.item_features):
            # Ids alone, as many callers send them: beside the graph's run, each further call here costs microseconds.
            self._context.require(())
            for group in self._groups:
                group.copy(hashes, columns[group.part])
            self._fill_crosses(hashes, columns)
            return self._encoded(columns, known_user, known_items, self._context.names)
        context = [column for pair in request.context.items() for column in self._context.of(*pair)]
        given = {column.name: column.given for column in context}
        self._context.require(given)
        own_values = self._given.of(request, count, check)
        given |= own_values
        missing = tuple(name for name in self._context.names if given.get(name) is None)
        fresh = list[tuple[PushedColumn, RequestColumn]]()
        stale: dict[str, NDArray[np.int64]] = {}
        if pushed is not None:
            fresh = self._encodable(pushed, pushed.entities(request.user, request.items), given, stale)
            self._take_keys(fresh, hashes, {"user": known_user, "item": known_items})
        hashes |= {name: self._given.as_key(name, value) for name, value in given.items() if name in self._keys}
        for group in self._groups:
            group.copy(hashes, columns[group.part])
        if pushed is not None:
            fresh += self._encodable(pushed, self._pushed_pairs(pushed, hashes, columns), given, stale)
        self._fill_crosses(hashes, columns)
        for column, value in fresh:
            if column.name in self._specs:
                self._fill_feature(self._specs[column.name], value, columns, column.rows)
        for column_of_context in context:
            self._context.copy(column_of_context, columns)
        clipped = {column.name: column.clipped for column in context if column.clipped}
        clipped |= self._fill_given(own_values, columns, check)
        unseen = tuple(column.name for column in context if column.unseen)
        pushed_rows = {column.name: column.rows for column, _ in fresh}
        encoded = self._encoded(columns, known_user, known_items, missing)
        return replace(encoded, unseen_context=unseen, clipped=clipped, given=given, pushed=pushed_rows, stale=stale)

    def _fill_entities(
        self, request: RankRequest, columns: Mapping[PartName, Columns]
    ) -> tuple[dict[str, Hashes], NDArray[np.bool_], NDArray[np.bool_]]:
        """Look the user and the items up.

        Returns:
            The hashes of all keys that are known by now, whether the user is known [1], and which items are [N].
        """
        user, item = self._schema.user_key, self._schema.item_key
        # What neither a table nor the request tells is null.
        hashes: dict[str, Hashes] = dict.fromkeys(self._other_keys, _NULL)
        hashes[user] = self._key_hashes(user, (request.user,), "user")
        hashes[item] = self._key_hashes(item, request.items, "items")
        own = dict(hashes) if self._own_ids else hashes
        known_user = self._fill_entity("request", user, hashes, columns)
        known_items = self._fill_entity("candidate", item, hashes, columns)
        for spec in self._own_ids:
            self._fill_feature(spec, own[spec.name], columns)
        return hashes, known_user, known_items

    def _encoded(
        self,
        columns: Mapping[PartName, Columns],
        known_user: NDArray[np.bool_],
        known_items: NDArray[np.bool_],
        missing: tuple[str, ...],
    ) -> EncodedRequest:
        request, candidate = columns["request"], columns["candidate"]
        inputs, unknown = Inputs(request.inputs(), candidate.inputs()), not known_user.all()
        if not self._rows_of:
            return EncodedRequest(inputs, unknown, ~known_items, missing)
        rows = request.rows_of | candidate.rows_of
        return EncodedRequest(inputs, unknown, ~known_items, missing, item_rows=rows.get("item"), rows_of=rows)

    def _fill_given(
        self, given: Mapping[str, RequestColumn], columns: Mapping[PartName, Columns], check: Callable[[], None]
    ) -> dict[str, int]:
        """Encode values of the user and the items; how many numbers lay beyond what training saw, by feature."""
        clipped: dict[str, int] = {}
        for name, value in given.items():
            if name in self._specs:
                check()
                self._fill_feature(self._specs[name], value, columns)
                if outside := beyond(self._specs[name], value):
                    clipped[name] = outside
        return clipped

    def _keys_with_rows_for_anything(self) -> list[IdSpec]:
        """Keys whose unknown values have rows of their own take them from the request, not from what nobody has."""
        keys = (self._specs.get(key) for key in (self._schema.user_key, self._schema.item_key))
        return [s for s in keys if isinstance(s, IdSpec) and (s.encoding == "hash" or s.unknown_rows)]

    def _pair_groups(self, tables: OnlineTables) -> tuple[PairGroup, ...]:
        members: dict[tuple[PartName, int], list[tuple[str, ...]]] = {}
        for keys in tables.pairs:
            on_items = any(self._keys[key].side == "item" for key in keys)
            members.setdefault(("candidate" if on_items else "request", len(keys)), []).append(keys)
        names = {keys: f"pair_{number}" for number, keys in enumerate(tables.pairs)}
        rows_of = {keys: name for keys, name in names.items() if name in self._rows_of}
        return tuple(
            PairGroup(part, self._layouts[part], {keys: tables.pairs[keys] for keys in group}, rows_of)
            for (part, _), group in members.items()
        )

    def item_hashes(self, items: Sequence[Id]) -> Hashes:
        """The hashes [N] of items' keys.

        Raises:
            RequestError: one of the wrong type.
        """
        return self._key_hashes(self._schema.item_key, items, "items")

    def _key_hashes(self, key: str, values: Sequence[Id | None], where: str) -> Hashes:
        if not key:
            return np.zeros(len(values), dtype=np.uint64)
        return id_hashes(values, self._keys[key].dtype, where)

    def _fill_entity(
        self, part: PartName, key: str, hashes: dict[str, Hashes], columns: Mapping[PartName, Columns]
    ) -> NDArray[np.bool_]:
        """Look an entity up by its own hashes [n]; its attributes that key pair tables join `hashes`.

        Returns:
            Who is known.
        """
        route = self._entities[part]
        if route is None:
            return np.ones(len(hashes[key]), dtype=np.bool_)
        looked_up = route.fill(hashes[key], columns[part])
        hashes |= {name: looked_up.key_hashes[:, place] for place, name in enumerate(route.table.key_names)}
        if looked_up.rows is not None:
            columns[part].rows_of["user" if part == "request" else "item"] = looked_up.rows
        return looked_up.known

    def _fill_crosses(self, hashes: Mapping[str, Hashes], columns: Mapping[PartName, Columns]) -> None:
        for spec in self._crosses:
            together = combine([hashes[key] for key in spec.keys])
            values = np.where(together == NULL_HASH, NULL_HASH, hash_integers(together.view(np.int64)))
            target = columns[self._part_of[spec.name]]
            target.ids[:, target.layout.place[spec.name]] = self._encoder.rows(spec, values)

    def _encodable(
        self,
        source: PushedSource,
        pushed: Iterable[PushedColumn],
        given: Mapping[str, RequestColumn],
        stale: dict[str, NDArray[np.int64]],
    ) -> list[tuple[PushedColumn, RequestColumn]]:
        """Pushed values that this model has a use for and the request does not give itself, checked.

        Those that are too old join `stale`.
        """
        fresh = []
        for column in pushed:
            if column.is_stale:
                stale[column.name] = column.rows
                continue
            if column.name not in self._given.allowed[column.side] or column.name in given:
                continue
            try:
                parts = self._given.columns(column.name, column.values, column.side, f"pushed.{column.name}")
            except RequestError as error:
                source.refuse(column.name, error)
                continue
            fresh += [(column._replace(name=name), value) for name, value in parts.items()]
        return fresh

    def _take_keys(
        self,
        fresh: Sequence[tuple[PushedColumn, RequestColumn]],
        hashes: dict[str, Hashes],
        known: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        """Pushed attributes that key pair tables replace those that were looked up; who has any value is known."""
        for column, value in fresh:
            known[column.side][column.rows] = True
            if column.name in self._keys:
                words = np.broadcast_to(hashes.get(column.name, NULL_HASH), known[column.side].shape).copy()
                words[column.rows] = self._given.as_key(column.name, value)
                hashes[column.name] = words

    def _pushed_pairs(
        self, source: PushedSource, hashes: Mapping[str, Hashes], columns: Mapping[PartName, Columns]
    ) -> Iterator[PushedColumn]:
        for group in self._groups:
            side: Literal["user", "item"] = "user" if group.part == "request" else "item"
            for keys in group.keys:
                together = combine([hashes[key] for key in keys])
                yield from source.pairs(side, keys, np.broadcast_to(together, columns[group.part].rows))

    def _fill_feature(
        self, spec: FeatureSpec, given: RequestColumn, columns: Mapping[PartName, Columns], rows: Rows = EVERY_ROW
    ) -> None:
        target = columns[self._part_of[spec.name]]
        try:
            if isinstance(spec, DenseSpec):
                refuse_nulls(spec, np.isnan(given))
                target.dense[rows, target.layout.place[spec.name]] = self._encoder.numbers(spec, given)
            elif spec.kind == "id":
                refuse_nulls(spec, given == NULL_HASH)
                target.ids[rows, target.layout.place[spec.name]] = self._encoder.rows(spec, given)
            else:
                lists = lists_of(self._encoder, spec, given)
                if not isinstance(rows, slice):
                    lists = spliced(target.lists.get(spec.name) or target.empty, rows, lists)
                target.lists[spec.name] = lists
        except DataError as error:
            raise RequestError(str(error), field=spec.name) from error
