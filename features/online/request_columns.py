"""The columns of model inputs, and the routes by which rows of online tables get into them."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.hashing import Hashes, combine
from contract.inputs import PartInputs, PartName
from contract.schema import Part
from features.online.hash_index import JointHashIndex
from features.online.online_table import Found, Lookup, OnlineTable
from features.point_in_time.ragged import Ragged

Places = slice | NDArray[np.int64]


class Layout:
    """Where a part's columns stand, and what they hold before anything is known; worked out once."""

    def __init__(self, part: Part) -> None:
        self.lists = tuple(spec.name for spec in part.lists)
        self.place = {spec.name: i for i, spec in enumerate(part.ids)}
        self.place |= {spec.name: i for i, spec in enumerate(part.dense)}
        self.ids = np.zeros((1, len(part.ids)), dtype=np.int64)
        self.dense = np.zeros((1, len(part.dense)), dtype=np.float32)

    def places(self, names: Sequence[str]) -> Places:
        """The columns of features: neighbours are one block, which costs a fraction of an index a column."""
        places = [self.place[name] for name in names]
        block = bool(places) and places == list(range(places[0], places[0] + len(places)))
        return slice(places[0], places[-1] + 1) if block else np.array(places, dtype=np.int64)


class Columns:
    """A part under assembly: matrices to fill by column, and lists by name."""

    def __init__(self, layout: Layout, rows: int) -> None:
        self.layout, self.rows = layout, rows
        self.ids = layout.ids.repeat(rows, axis=0)
        self.dense = layout.dense.repeat(rows, axis=0)
        self.lists: dict[str, Ragged] = {}

    @property
    def empty(self) -> Ragged:
        """A list without values in each row."""
        return Ragged.empty(self.rows)

    def inputs(self) -> PartInputs:
        """The finished part."""
        empty = self.empty
        lists = [self.lists.get(name, empty) for name in self.layout.lists]
        return PartInputs(
            self.ids,
            np.concatenate([x.values for x in lists]).astype(np.int64) if lists else np.zeros(0, dtype=np.int64),
            np.stack([x.lengths for x in lists]) if lists else np.zeros((0, self.rows), dtype=np.int64),
            self.dense,
        )


class Route:
    """A table and the columns of a part that its columns go to."""

    def __init__(self, table: Lookup, layout: Layout) -> None:
        self.table = table
        self._ids, self._dense = layout.places(table.id_names), layout.places(table.dense_names)

    def copy(self, found: Found, columns: Columns) -> None:
        """Copy the features of keys [n] into the columns of the part, one row serving all if n is 1."""
        if self.table.id_names:
            columns.ids[:, self._ids] = found.ids
        if self.table.dense_names:
            columns.dense[:, self._dense] = found.dense
        columns.lists |= found.lists


class PairGroup:
    """Tables of one part with equally many keys: their keys are combined, and looked for, in one go."""

    def __init__(self, part: PartName, layout: Layout, tables: Mapping[tuple[str, ...], OnlineTable]) -> None:
        self.part = part
        self.keys = tuple(tables)
        self._tables = tuple(tables.values())
        self._routes = tuple(Route(table, layout) for table in self._tables)
        self._index = JointHashIndex([table.index for table in self._tables])
        self._unknown = np.array([len(table.keys) for table in self._tables])

    def copy(self, words: Hashes, columns: Columns) -> None:
        """Copy the features of keys, whose parts [keys, tables, n] these are, into the columns of the part."""
        rows, known = self._index.find(combine(list(words)), self._unknown)
        for place, (table, route) in enumerate(zip(self._tables, self._routes, strict=True)):
            route.copy(table.at(rows[place], known[place]), columns)
