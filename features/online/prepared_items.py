"""Requests for graphs over prepared items, and the items that are prepared: the rows of the online table of items.

Shape legend: I items and the unknown one, N candidate rows.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal

import numpy as np

from contract.errors import RequestError
from contract.hashing import Hashes
from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, Schema
from features.online.online_table import OnlineTable, RowsOfItems
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


def item_inputs(schema: Schema, table: OnlineTable) -> PartInputs:
    """The candidate's part for every row of the table [I], the last one being the unknown item; others hold zeros."""
    layout, rows = Layout(schema.candidate), np.arange(len(table.keys) + 1)
    columns = Columns(layout, len(rows))
    Route(table, layout).copy(table.at(rows, np.ones(len(rows), dtype=np.bool_)), columns)
    return columns.inputs()


class PreparedEncoder:
    """Encodes requests for a graph over prepared items where it can answer them, else for the general graph.

    It cannot where a request brings its own values of prepared features, where such were pushed, or where it names
    unknown items that have embedding rows of their own.
    """

    def __init__(self, general: RequestEncoder, names: Collection[str]) -> None:
        """Prepared are the features `names`, all of which the table of items holds."""
        self._general, self._names = general, frozenset(names)
        self._lean = general.lean(self._names, RowsOfItems)
        dense = (spec for spec in general.schema.features if isinstance(spec, DenseSpec) and spec.name in self._names)
        # A request gives a vector by its own name, not by its numbers'.
        self._given_names = self._names | {spec.vector for spec in dense if spec.vector}
        specs = (spec for spec in general.schema.features if isinstance(spec, IdSpec) and spec.name in self._names)
        key = general.schema.item_key
        self._known_only = any(s.name == key and (s.encoding == "hash" or s.unknown_rows) for s in specs)

    def encode(
        self, request: RankRequest, check: Callable[[], None] = no_check, pushed: PushedSource | None = None
    ) -> EncodedRequest:
        """As `RequestEncoder.encode`; where `item_rows` is set, the inputs are those of the prepared graph.

        Raises:
            RequestError: as `RequestEncoder.encode`.
        """
        once = None if pushed is None else _ReadOnce(pushed, request)
        fresh = set(request.item_features) | (set() if once is None else once.names)
        if not self._given_names.isdisjoint(fresh):
            return self._general.encode(request, check, once)
        encoded = self._lean.encode(request, check, once)
        if self._known_only and encoded.unknown_items.any():
            return self._general.encode(request, check, once)
        return encoded

    def whole(self, encoded: EncodedRequest) -> Inputs:
        """The inputs of the general graph: what the request left to its items' rows stands in their table."""
        table, rows = self._general.item_table, encoded.item_rows
        if rows is None or table is None:
            return encoded.inputs
        brought, layout = encoded.inputs.candidate, Layout(self._general.schema.candidate)
        columns = Columns(layout, len(rows))
        Route(table, layout).copy(table.at(rows, ~encoded.unknown_items), columns)
        part = self._lean.schema.candidate
        columns.ids[:, layout.places([spec.name for spec in part.ids])] = brought.ids
        columns.dense[:, layout.places([spec.name for spec in part.dense])] = brought.dense
        ends = np.cumsum(brought.list_lengths.sum(axis=1))[:-1]
        packed = np.split(brought.list_values, ends)
        for spec, values, lengths in zip(part.lists, packed, brought.list_lengths, strict=False):
            columns.lists[spec.name] = Ragged.packed(values.astype(np.int32), lengths)
        return Inputs(encoded.inputs.request, columns.inputs())


class _ReadOnce:
    """What was pushed of a request's user and items, read once, whichever graph it is encoded for."""

    def __init__(self, source: PushedSource, request: RankRequest) -> None:
        self._source = source
        self._columns = list(source.entities(request.user, request.items))
        self.names = {column.name for column in self._columns if column.side == "item" and not column.is_stale}

    def entities(self, user: int | str | None, items: Sequence[int | str]) -> Iterable[PushedColumn]:
        """As `PushedSource.entities`, for the request that it was read for."""
        del user, items
        return self._columns

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterable[PushedColumn]:
        """As `PushedSource.pairs`."""
        return self._source.pairs(side, keys, hashes)

    def refuse(self, name: str, error: RequestError) -> None:
        """As `PushedSource.refuse`."""
        self._source.refuse(name, error)
