"""Requests for graphs over prepared rows, and what is prepared: rows of the online tables of items, users and pairs.

Shape legend: n rows of a table, the unknown one among them, N candidate rows.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import numpy as np

from contract.errors import RequestError
from contract.hashing import Hashes
from contract.inputs import PARTS, Inputs, PartInputs, PartName
from contract.schema import DenseSpec, IdSpec, Part, Schema
from features.online.online_table import OnlineTable, OnlineTables
from features.online.pushed_values import PushedColumn, PushedSource
from features.online.request_columns import Columns, Layout, Route
from features.online.request_encoder import EncodedRequest, RankRequest, RequestEncoder, no_check
from features.point_in_time.ragged import Ragged


def preparable(schema: Schema, table: OnlineTable | None) -> frozenset[str]:
    """The features that hang on the item alone and stand in the table of items."""
    if table is None:
        return frozenset()
    in_table = {*table.id_names, *table.dense_names, *table.lists}
    return frozenset(spec.name for spec in schema.features if spec.side == "item" and spec.name in in_table)


def features_of(schema: Schema, tables: OnlineTables) -> dict[str, frozenset[str]]:
    """The features that each table holds, by its name; none of tables that the schema's sides do not fit."""
    sides = {"user": "user", "item": "item"}
    names_by_table = {}
    for name, table in tables.by_name().items():
        held = {*table.id_names, *table.dense_names, *table.lists}
        side = sides.get(name, "pair")
        names_by_table[name] = frozenset(
            spec.name for spec in schema.features if spec.side == side and spec.name in held
        )
    return names_by_table


def item_inputs(schema: Schema, table: OnlineTable) -> PartInputs:
    """The candidate's part for every row of the table [n], the last one being the unknown item; others hold zeros."""
    return part_inputs(schema.candidate, table)


def part_inputs(part: Part, table: OnlineTable) -> PartInputs:
    """A part for every row of a table [n], the last one being that of unknown keys; other columns hold zeros."""
    layout, rows = Layout(part), np.arange(len(table.keys) + 1)
    columns = Columns(layout, len(rows))
    Route(table, layout).copy(table.at(rows, np.ones(len(rows), dtype=np.bool_)), columns)
    return columns.inputs()


class PreparedEncoder:
    """Encodes requests for a graph over prepared rows where it can answer them, else for the general graph.

    It cannot where a request brings its own values of prepared features, where such were pushed, or where it names
    an unknown item or user that has an embedding row of its own.
    """

    def __init__(self, general: RequestEncoder, names: Collection[str], tables: Collection[str] = ("item",)) -> None:
        """The features `names` are prepared; the `tables` hold all of them."""
        self._general, self._names = general, frozenset(names)
        self._lean = general.lean(self._names, tables)
        dense = (spec for spec in general.schema.features if isinstance(spec, DenseSpec) and spec.name in self._names)
        # A request gives a vector by its own name, not by its numbers'.
        self._given_names = self._names | {spec.vector for spec in dense if spec.vector}
        specs = (spec for spec in general.schema.features if isinstance(spec, IdSpec) and spec.name in self._names)
        schema = general.schema
        own = {s.name for s in specs if s.encoding == "hash" or s.unknown_rows}
        self._known_only, self._known_user_only = schema.item_key in own, schema.user_key in own

    def encode(
        self, request: RankRequest, check: Callable[[], None] = no_check, pushed: PushedSource | None = None
    ) -> EncodedRequest:
        """As `RequestEncoder.encode`; where `item_rows` is set, the inputs are those of the prepared graph.

        Raises:
            RequestError: as `RequestEncoder.encode`.
        """
        once = None if pushed is None else _ReadOnce(pushed, request)
        fresh = {*request.item_features, *request.user_features} | (set() if once is None else once.names)
        if not self._given_names.isdisjoint(fresh):
            return self._general.encode(request, check, once)
        encoded = self._lean.encode(request, check, once)
        strange = self._known_only and bool(encoded.unknown_items.any())
        strange = strange or (self._known_user_only and encoded.unknown_user)
        if strange or not (once is None or self._given_names.isdisjoint(once.names)):
            return self._general.encode(request, check, once)
        return encoded

    def whole(self, encoded: EncodedRequest) -> Inputs:
        """The inputs of the general graph: what the request left to rows of tables stands there."""
        if not encoded.rows_of:
            return encoded.inputs
        counts = {"request": 1, "candidate": len(encoded.unknown_items)}
        return Inputs(*(self._whole_part(part, encoded, counts[part]) for part in PARTS))

    def _whole_part(self, name: PartName, encoded: EncodedRequest, count: int) -> PartInputs:
        brought: PartInputs = getattr(encoded.inputs, name)
        schema, layout = self._general.schema, Layout(self._general.schema.part(name))
        columns, tables = Columns(layout, count), self._general.tables.by_name()
        for table, features in features_of(schema, self._general.tables).items():
            if table in encoded.rows_of and features and _in_part(schema, name, features):
                rows = encoded.rows_of[table]
                Route(tables[table], layout).copy(tables[table].at(rows, np.ones(len(rows), dtype=np.bool_)), columns)
        part = self._lean.schema.part(name)
        columns.ids[:, layout.places([spec.name for spec in part.ids])] = brought.ids
        columns.dense[:, layout.places([spec.name for spec in part.dense])] = brought.dense
        ends = np.cumsum(brought.list_lengths.sum(axis=1))[:-1]
        packed = np.split(brought.list_values, ends)
        for spec, values, lengths in zip(part.lists, packed, brought.list_lengths, strict=False):
            columns.lists[spec.name] = Ragged.packed(values.astype(np.int32), lengths)
        return columns.inputs()


def _in_part(schema: Schema, part: PartName, features: Collection[str]) -> bool:
    return any(spec.name in features and schema.part_of(spec) == part for spec in schema.features)


class _ReadOnce:
    """What was pushed of a request's user and items, read once, whichever graph it is encoded for."""

    def __init__(self, source: PushedSource, request: RankRequest) -> None:
        self._source = source
        self._columns = list(source.entities(request.user, request.items))
        self.names = {column.name for column in self._columns if not column.is_stale}
        """What was pushed; of pairs, only after these were asked for."""

    def entities(self, user: int | str | None, items: Sequence[int | str]) -> Iterable[PushedColumn]:
        """As `PushedSource.entities`, for the request that it was read for."""
        del user, items
        return self._columns

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterable[PushedColumn]:
        """As `PushedSource.pairs`."""
        columns = list(self._source.pairs(side, keys, hashes))
        self.names |= {column.name for column in columns if not column.is_stale}
        return columns

    def refuse(self, name: str, error: RequestError) -> None:
        """As `PushedSource.refuse`."""
        self._source.refuse(name, error)
