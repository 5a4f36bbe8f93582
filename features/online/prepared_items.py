"""Requests for graphs over prepared rows, and what is prepared: rows of the online tables of items, users and pairs.

Shape legend: n rows of a table, the unknown one among them, N candidate rows.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.hashing import Hashes
from contract.inputs import PARTS, Inputs, PartInputs, PartName
from contract.schema import DenseSpec, IdSpec, Part, Schema
from features.online.encoded_request import Apart
from features.online.online_table import OnlineTable, OnlineTables
from features.online.pushed_values import PushedColumn, PushedSource
from features.online.request_columns import Columns, Layout, Route
from features.online.request_encoder import EncodedRequest, RankRequest, RequestEncoder, no_check
from features.point_in_time.ragged import Ragged

MOST_APART = 0.5
"""Share of candidates from which on the general graph answers all of them."""


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

    It cannot where a request brings its own values of prepared features, and for users and candidates of whom such were
    pushed, or that are unknown and have an embedding row of their own. A few such candidates stand `apart`.
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
        if not self._given_names.isdisjoint({*request.item_features, *request.user_features}):
            return self._general.encode(request, check, once)
        lean = self._lean.encode(request, check, once)
        apart = self._apart(lean, once)
        if apart is None:
            return lean
        general, rows = self._general.encode(request, check, once), np.flatnonzero(apart)
        if len(rows) > MOST_APART * len(apart):
            return general
        by_rows: dict[str, Any] = {"inputs": lean.inputs, "item_rows": lean.item_rows, "rows_of": lean.rows_of}
        return replace(general, **by_rows, apart=Apart(rows, general.inputs))

    def _apart(self, encoded: EncodedRequest, once: "_ReadOnce | None") -> NDArray[np.bool_] | None:
        """Which candidates [N] need the general graph; None if none does."""
        apart = encoded.unknown_items.copy() if self._known_only else np.zeros_like(encoded.unknown_items)
        if self._known_user_only and encoded.unknown_user:
            apart[:] = True
        for column in () if once is None else once.columns:
            if column.name in self._given_names:
                apart[column.rows if column.side == "item" else slice(None)] = True
        return apart if apart.any() else None

    def whole(self, encoded: EncodedRequest) -> Inputs:
        """The inputs of the general graph: what the request left to rows of tables stands there."""
        if encoded.apart is not None:
            return encoded.apart.inputs
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
        self.columns = [column for column in self._columns if not column.is_stale]
        """What was pushed; of pairs, only after these were asked for."""

    def entities(self, user: int | str | None, items: Sequence[int | str]) -> Iterable[PushedColumn]:
        """As `PushedSource.entities`, for the request that it was read for."""
        del user, items
        return self._columns

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterable[PushedColumn]:
        """As `PushedSource.pairs`."""
        columns = list(self._source.pairs(side, keys, hashes))
        self.columns += [column for column in columns if not column.is_stale]
        return columns

    def refuse(self, name: str, error: RequestError) -> None:
        """As `PushedSource.refuse`."""
        self._source.refuse(name, error)
