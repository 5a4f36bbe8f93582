"""The columns of model inputs, and the routes by which rows of online tables get into them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.hashing import Hashes, combine
from contract.inputs import PartInputs, PartName
from contract.schema import Part
from features.online.compiled import kernels
from features.online.compiled_rows import CompiledRows
from features.online.hash_index import JointHashIndex
from features.online.online_table import Lookup, OnlineTable, RowsOf, TableRows
from features.point_in_time.ragged import Ragged

_NO_VALUES = np.zeros(0, np.int64)
Places = slice | NDArray[np.int64]


class Layout:
    """Where a part's columns stand, and what they hold before anything is known; worked out once."""

    def __init__(self, part: Part) -> None:
        self.lists = tuple(spec.name for spec in part.lists)
        self.place = {spec.name: i for i, spec in enumerate(part.ids)}
        self.place |= {spec.name: i for i, spec in enumerate(part.dense)}
        self.ids = np.zeros((1, len(part.ids)), dtype=np.int64)
        self.dense = np.zeros((1, len(part.dense)), dtype=np.float32)

    def indices(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The columns of features."""
        return np.array([self.place[name] for name in names], dtype=np.int64)

    def places(self, names: Sequence[str]) -> Places:
        """As `indices`, but neighbours are one block, which costs NumPy a fraction of an index a column."""
        places = self.indices(names).tolist()
        block = bool(places) and places == list(range(places[0], places[0] + len(places)))
        return slice(places[0], places[-1] + 1) if block else np.array(places, dtype=np.int64)


class Columns:
    """A part under assembly: matrices to fill by column, and lists by name."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout, self.rows = layout, rows
        self.ids = np.empty((rows, layout.ids.shape[1]), np.int64)
        self.dense = np.empty((rows, layout.dense.shape[1]), np.float32)
        # To assign nothing costs as much as to assign a little.
        if layout.ids.size:
            self.ids[:] = layout.ids
        if layout.dense.size:
            self.dense[:] = layout.dense
        self.lists: dict[str, Ragged] = {}
        self.rows_of: dict[str, NDArray[np.int64]] = {}
        """Row numbers by table, where nothing else is needed."""

    @property
    def empty(self) -> Ragged:
        """A list without values in each row."""
        return Ragged.empty(self.rows)

    def inputs(self) -> PartInputs:
        """The finished part."""
        if not self.layout.lists:
            return PartInputs(self.ids, _NO_VALUES, np.empty((0, self.rows), np.int64), self.dense)
        empty = self.empty
        lists = [self.lists.get(name, empty) for name in self.layout.lists]
        values = np.concatenate([x.values for x in lists]).astype(np.int64)
        return PartInputs(self.ids, values, np.stack([x.lengths for x in lists]), self.dense)


class Entities(NamedTuple):
    """Who is `known` [n], the attributes that key other tables [n, K], and, if asked for, the table's `rows` [n]."""

    known: NDArray[np.bool_]
    key_hashes: Hashes
    rows: NDArray[np.int64] | None


class Route:
    """A table and the columns of a part that its columns go to."""

    def __init__(self, table: Lookup, layout: Layout) -> None:
        self.table = table
        self._ids, self._dense = layout.places(table.id_names), layout.places(table.dense_names)
        self._with_rows = isinstance(table, RowsOf)
        self._halves = layout.places(table.half_names) if isinstance(table, OnlineTable) else slice(0)
        self._compiled = _compiled(table, layout)

    def fill(self, hashes: Hashes, columns: Columns) -> Entities:
        """Look an entity's keys [n] up, and copy their features into the columns of the part."""
        if self._compiled is None:
            features = self.table.lookup(hashes)
            self.copy(features, columns)
            return Entities(features.known, features.key_hashes, features.rows)
        table, compiled = self._compiled
        rows, known = compiled.copy((hashes,), columns.ids, columns.dense)
        if table.half_names and not self._with_rows:
            columns.dense[:, self._halves] = table.halves.take(rows, axis=0)
        if table.lists and not self._with_rows:
            columns.lists |= {name: each.take(rows) for name, each in table.lists.items()}
        keys = table.key_hashes.take(rows, axis=0) if table.key_names else np.empty((len(rows), 0), np.uint64)
        return Entities(known, keys, rows if self._with_rows else None)

    def copy(self, features: TableRows, columns: Columns) -> None:
        """Copy the features of keys [n] into the columns of the part, one row serving all if n is 1."""
        if self.table.id_names:
            columns.ids[:, self._ids] = features.ids
        if self.table.dense_names:
            columns.dense[:, self._dense] = features.dense
        columns.lists |= features.lists


class PairGroup:
    """Tables of one part with equally many keys: by NumPy, their keys are combined, and looked for, in one go."""

    def __init__(
        self,
        part: PartName,
        layout: Layout,
        tables: Mapping[tuple[str, ...], OnlineTable],
        rows_of: Mapping[tuple[str, ...], str],
    ) -> None:
        """Of the tables that `rows_of` gives names, only the rows' numbers are looked up."""
        self.part = part
        self.keys = tuple(tables)
        self._tables = tuple(tables.values())
        self._names = tuple(rows_of.get(keys) for keys in tables)
        lookups = [RowsOf(table) if keys in rows_of else table for keys, table in tables.items()]
        self._routes = tuple(Route(table, layout) for table in lookups)
        self._compiled = [compiled for table in lookups if (compiled := _compiled(table, layout)) is not None]
        self._index = JointHashIndex([table.index for table in self._tables])
        self._unknown = np.array([len(table.keys) for table in self._tables])

    def copy(self, hashes: Mapping[str, Hashes], columns: Columns) -> None:
        """Copy the features of tuples of keys, whose hashes [n] or [1] these are, into the columns of the part [n]."""
        each_table = zip(self.keys, self._names, self._compiled, strict=bool(self._compiled))
        for keys, name, (table, compiled) in each_table:
            rows, _ = compiled.copy([hashes[key] for key in keys], columns.ids, columns.dense)
            if name is not None:
                columns.rows_of[name] = rows
            elif table.lists:
                columns.lists |= {name: each.take(rows) for name, each in table.lists.items()}
        if not self._compiled:
            self._copy_together(hashes, columns)

    def _copy_together(self, hashes: Mapping[str, Hashes], columns: Columns) -> None:
        words = np.empty((len(self.keys[0]), len(self.keys), columns.rows), dtype=np.uint64)
        for table, keys in enumerate(self.keys):
            for place, key in enumerate(keys):
                words[place, table] = hashes[key]
        rows, known = self._index.find(combine(list(words)), self._unknown)
        for place, (lookup, route, name) in enumerate(zip(self._tables, self._routes, self._names, strict=True)):
            if name is None:
                route.copy(lookup.at(rows[place], known[place]), columns)
            else:
                columns.rows_of[name] = rows[place]


def _compiled(table: Lookup, layout: Layout) -> tuple[OnlineTable, CompiledRows] | None:
    """A table, and the compiled way into the columns of a part; None without numba, or for a store of users."""
    compiled = kernels()
    held = table.table if isinstance(table, RowsOf) else table
    if compiled is None or not isinstance(held, OnlineTable):
        return None
    # The kernel copies numbers of 32 bits.
    names = table.dense_names[: held.dense.shape[1]]
    return held, CompiledRows(held, layout.indices(table.id_names), layout.indices(names), compiled.fill)
