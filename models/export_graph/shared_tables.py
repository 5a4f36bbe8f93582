"""Rows of online tables as their share of the one first layer, prepared outside of the graph, which takes their sum.

Shape legend: n rows of a table, N candidate rows, R requests, H outputs of the first layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.errors import ExportError
from contract.inputs import Inputs, PartInputs, PartName
from contract.prepared import taken, with_items, without
from contract.schema import Schema
from models.export_graph.affine import Affine
from models.export_graph.blocks import affine_of
from models.export_graph.lookup import PartLookup, stacked_tables
from models.export_graph.split import LeftColumns
from models.ranker import Ranker

_AT_ONCE = 2**13
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class SharedTable:
    """A table's features `names`, all of one part; `inputs` has all columns of that part for the table's n rows."""

    name: str
    part: PartName
    names: frozenset[str]
    inputs: PartInputs


class PreparedShares:
    """What tables add to the first layer, row by row, and which features a request need not bring."""

    def __init__(self, ranker: Ranker, tables: Sequence[SharedTable]) -> None:
        """Compute all rows.

        Raises:
            ExportError: the model has not one first layer, or routes by a feature of the tables.
        """
        self.names = frozenset(name for table in tables for name in table.names)
        self.tables = tuple(tables)
        if ranker.network.routes_by_columns and any(table.part == "request" for table in tables):
            message = "the gates route by the user's columns, which a graph over prepared users does not see"
            raise ExportError(message)
        self._schema, self._shares = ranker.schema, FirstLayer(ranker, self.names)
        self.rows: Mapping[str, Floats] = {
            table.name: self._shares.of(table.part, table.names, table.inputs) for table in tables
        }
        """By table its shares [n, H]."""

    @property
    def width(self) -> int:
        """H."""
        return self._shares.width

    @property
    def left(self) -> LeftColumns:
        """The columns that a request still brings."""
        return self._shares.left

    def lean(self, schema: Schema) -> Schema:
        """The schema of these columns."""
        return without(schema, self.names)

    def saved(self, table: SharedTable) -> int:
        """Multiplications that a row of the table spares."""
        return self._shares.columns(table.part, table.names) * self.width

    def drawn(self, inputs: Inputs, rng: np.random.Generator) -> tuple[Inputs, Floats]:
        """The inputs with rows of the tables drawn at random, the last row of each among them, and their sum [N, H]."""
        parts = {"request": inputs.request, "candidate": inputs.candidate}
        shares = np.zeros((inputs.candidate.rows, self.width), np.float32)
        for table in self.tables:
            count = table.inputs.rows
            rows = rng.integers(0, count, parts[table.part].rows)
            rows[-1] = count - 1
            specs = self._schema.part(table.part)
            parts[table.part] = with_items(parts[table.part], taken(table.inputs, rows), specs, table.names)
            shares += self.rows[table.name][rows]
        return Inputs(parts["request"], parts["candidate"]), shares

    def of(self, inputs: Inputs, table: str) -> Floats:
        """What the features of one table add where they are as in these inputs [R or N, H]."""
        own = next(each for each in self.tables if each.name == table)
        return self._shares.of(own.part, own.names, inputs.request if own.part == "request" else inputs.candidate)


class FirstLayer:
    """The one layer that reads the input matrix, as far as the features `names` go."""

    def __init__(self, ranker: Ranker, names: frozenset[str]) -> None:
        affine, dims = first_layer(ranker), ranker.config.dims
        if ranker.routing_id is not None:
            part, column = ranker.routing_id
            if (routing := ranker.layouts[part].ids[column].name) in names:
                message = f"the gate routes by {routing}, which a graph without it cannot"
                raise ExportError(message)
        stacked = stacked_tables(ranker)
        self._tables = stacked.by_dim
        weight_DH, first = affine.weight_HD.t(), ranker.layouts[0].width(dims)
        self.width = weight_DH.shape[1]
        self._lookups, self._columns, self._weights = {}, {}, {}
        left = []
        for layout, weights in zip(ranker.layouts, (weight_DH[:first], weight_DH[first:]), strict=True):
            self._lookups[layout.name] = PartLookup(layout, stacked.offsets, dims)
            self._columns[layout.name] = [(spec.name, columns) for spec, columns in layout.features(dims, 0)]
            self._weights[layout.name] = weights
            prepared = {c for name, columns in self._columns[layout.name] if name in names for c in columns}
            left.append(tuple(column for column in range(len(weights)) if column not in prepared))
        self.left = LeftColumns(*left)

    def columns(self, part: PartName, names: frozenset[str]) -> int:
        """How many columns of the input matrix some features of a part have."""
        return sum(len(columns) for name, columns in self._columns[part] if name in names)

    @torch.no_grad()
    def of(self, part: PartName, names: frozenset[str], inputs: PartInputs) -> Floats:
        """What some features of a part add [n, H], float32 of float64."""
        columns_J = [c for name, columns in self._columns[part] if name in names for c in columns]
        weight_JH = self._weights[part][columns_J].double()
        shares = np.empty((inputs.rows, self.width), np.float32)
        for start in range(0, inputs.rows, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, inputs.rows))
            shares[rows] = (self._matrix(part, taken(inputs, rows))[:, columns_J].double() @ weight_JH).float().numpy()
        return shares

    def _matrix(self, part: PartName, inputs: PartInputs) -> Tensor:
        arrays = {
            f"{part}_{kind}": torch.from_numpy(np.ascontiguousarray(getattr(inputs, kind)))
            for kind in ("ids", "list_values", "list_lengths", "dense")
        }
        whole = self._lookups[part](self._tables, arrays)
        assert isinstance(whole, Tensor)  # noqa: S101 a prepared feature has columns
        return whole


def first_layer(ranker: Ranker) -> Affine:
    """The first of the shared layers, with what is folded into it.

    Raises:
        ExportError: nothing but shared layers without an interaction before them reads the input matrix once.
    """
    network = ranker.network
    bottom = network.bottom_blocks
    if ranker.attended is not None:
        message = "target attention reads the user's list and the item together, so no sum can be prepared outside"
        raise ExportError(message)
    if network.side.personal or network.side.monotone:
        message = "the towers read inputs besides their mixtures, so no one sum can be prepared outside of the graph"
        raise ExportError(message)
    if network.interaction is not None or not bottom:
        what = "an interaction of all features" if network.interaction is not None else "each expert's first layer"
        message = f"{what} reads the inputs, so no one sum can be prepared outside of the graph"
        raise ExportError(message)
    norm = network.graph_norm()
    return affine_of(bottom[0]).after(norm)
