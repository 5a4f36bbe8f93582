"""A part's input columns in the graph: Gathers into the stacked tables, pooled lists, expanded dense scalars.

Ids that are not rows of their own table (negative, too large, any int64) read row 0 of that table, never another
feature's row.

Shape legend: N rows of the part, F id features, L list features, D dense features, V packed ids or rows of the
stacked tables, K embedding dim, S slots of the longest list.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.inputs import PartName
from models.input_layout import PartLayout, TableDims
from models.ranker import Ranker

Tensors = dict[str, Tensor]
Tables = Mapping[int, Tensor]
"""Stacked tables [V, K] by their width K."""
TABLES = "table_VK"
"""What a graph calls them, or the beginning of it where they have several widths."""


class StackedTables(NamedTuple):
    """Tables on top of each other, a row of zeros at the end, a stack for each width; and where each table begins."""

    by_dim: dict[int, Tensor]
    offsets: dict[str, int]


class TableHolder(nn.Module):
    """A module of a graph that has the stacked tables as buffers: ``table_VK``, or ``table_VK_16`` and so on."""

    def hold_tables(self, tables: Tables) -> None:
        """Register the buffers."""
        self.table_names = {dim: TABLES if len(tables) == 1 else f"{TABLES}_{dim}" for dim in tables}
        for dim, name in self.table_names.items():
            self.register_buffer(name, tables[dim])

    def tables(self) -> Tables:
        """The buffers by width."""
        return {dim: self.get_buffer(name) for dim, name in self.table_names.items()}


class PartLookup(nn.Module):
    """From a part's graph inputs to its columns of the first layer's input."""

    id_offsets_F: Tensor
    id_rows_F: Tensor

    def __init__(self, layout: PartLayout, table_offsets: dict[str, int], dims: TableDims) -> None:
        """Place the part's features in the stacked tables, whose first rows `table_offsets` gives."""
        super().__init__()
        self.part: PartName = layout.name
        self.ids, self.lists, self.offsets, self.dims = layout.ids, layout.lists, table_offsets, dims
        self.width = layout.width(dims)
        # Neighbours of one width are picked by one Gather.
        widths = groupby(range(len(layout.ids)), lambda place: dims.of(layout.ids[place]))
        self.spans = [(dim, list(places)) for dim, places in widths]
        self.dense = DenseGraph(layout)
        self.register_buffer("id_offsets_F", _int64([table_offsets[s.table_name] for s in layout.ids]))
        self.register_buffer("id_rows_F", _int64([s.rows for s in layout.ids]))

    def forward(self, tables: Tables, inputs: Tensors) -> Tensor | None:
        """The part's columns [N, width] from tables by width, or None if it has none."""
        columns: list[Tensor] = []
        if self.ids:
            rows_NF = self.known_ids(inputs) + self.id_offsets_F
            for dim, places in self.spans:
                own = rows_NF if len(self.spans) == 1 else rows_NF[:, places[0] : places[-1] + 1]
                columns.append(functional.embedding(own, tables[dim]).flatten(1))
        if self.lists:
            columns += self._pool(tables, inputs)
        if self.dense.width:
            columns.append(self.dense(inputs[f"{self.part}_dense"]))
        return torch.cat(columns, dim=1) if columns else None

    def known_ids(self, inputs: Tensors) -> Tensor:
        """The part's ids [N, F], 0 for those that are not rows of their table."""
        ids = inputs[f"{self.part}_ids"]
        return torch.where((ids >= 0) & (ids < self.id_rows_F), ids, 0)

    def _pool(self, tables: Tables, inputs: Tensors) -> list[Tensor]:
        """Sums or means of each list feature [N, K]: lists padded to the run's longest, gathered and added up.

        Not by scattering: onnxruntime's ScatterND adds duplicates from several threads at once, and loses some.
        """
        lengths_LN = inputs[f"{self.part}_list_lengths"]
        # The sentinel keeps the gather legal where all lists are empty.
        values_V = torch.cat([inputs[f"{self.part}_list_values"], lengths_LN.new_zeros(1)])
        ends_LN = lengths_LN.reshape(-1).cumsum(0).reshape(lengths_LN.shape)
        starts_LN = ends_LN - lengths_LN
        pooled = []
        for place, spec in enumerate(self.lists):
            table_VK = tables[self.dims.of(spec)]
            lengths_N1, starts_N1 = lengths_LN[place].unsqueeze(1), starts_LN[place].unsqueeze(1)
            slots_S = torch.arange(longest(lengths_N1))
            inside_NS = slots_S < lengths_N1
            ids_NS = values_V[torch.where(inside_NS, starts_N1 + slots_S, 0)]
            rows_NS = torch.where((ids_NS >= 0) & (ids_NS < spec.rows), ids_NS, 0) + self.offsets[spec.table_name]
            # The table's last row is zeros: what stands beside a list adds nothing.
            rows_NS = torch.where(inside_NS, rows_NS, table_VK.shape[0] - 1)
            sums_NK = functional.embedding(rows_NS, table_VK).sum(dim=1)
            pooled.append(sums_NK / lengths_N1.clamp(min=1) if spec.pooling == "mean" else sums_NK)
        return pooled


class DenseGraph(nn.Module):
    """A part's dense scalars [N, D] to columns [N, W], as `models.layers.dense.DenseColumns` joined makes them.

    The components of piecewise-linear numbers are x - b, clipped to [0, 1]. Picking columns of a matrix one by one
    costs ten times as much as multiplying by a matrix of zeros and ones, which gives the very same numbers: all but one
    of the products are zeros. Raw scalars go along.
    """

    spread_DW: Tensor
    shift_W: Tensor
    least_W: Tensor
    most_W: Tensor

    def __init__(self, layout: PartLayout) -> None:
        """Place the layout's columns."""
        super().__init__()
        sources = [*layout.raw, *layout.source, *layout.nulls]
        self.width, self.raw, marks = len(sources), len(layout.raw), len(layout.nulls)
        clipped = self.width - self.raw
        spread_DW = torch.zeros(len(layout.dense), self.width)
        # The mark of a null, whose position is -1, is clip(-p, 0, 1).
        spread_DW[sources, range(self.width)] = torch.tensor([1.0] * (self.width - marks) + [-1.0] * marks)
        self.register_buffer("spread_DW", spread_DW)
        # Bounds that let raw scalars pass.
        beyond = torch.finfo(torch.float32).max
        self.register_buffer("least_W", torch.tensor([-beyond] * self.raw + [0.0] * clipped))
        self.register_buffer("most_W", torch.tensor([beyond] * self.raw + [1.0] * clipped))
        lower = [0.0] * self.raw + [*layout.lower] + [0.0] * marks
        self.register_buffer("shift_W", -torch.tensor(lower, dtype=torch.float32))

    def forward(self, dense_ND: Tensor) -> Tensor:
        """[N, D] -> [N, W]."""
        if self.width == self.raw == dense_ND.shape[1]:
            return dense_ND
        spread_NW = torch.addmm(self.shift_W, dense_ND, self.spread_DW)
        if not self.raw:
            return spread_NW.clamp(0.0, 1.0)
        if self.raw == self.width:
            return spread_NW
        return spread_NW.maximum(self.least_W).minimum(self.most_W)


def stacked_tables(ranker: Ranker) -> StackedTables:
    """All embedding tables of one width on top of each other, a row of zeros at the end."""
    offsets: dict[str, int] = {}
    by_dim: dict[int, list[Tensor]] = {}
    weights = ranker.table_weights()
    for name in ranker.schema.tables():
        table = weights[name].detach().cpu()
        above = by_dim.setdefault(table.shape[1], [])
        offsets[name] = sum(map(len, above))
        above.append(table)
    stacks = {dim: torch.cat([*tables, torch.zeros(1, dim)]) for dim, tables in by_dim.items()}
    return StackedTables(stacks, offsets)


def longest(lengths_N1: Tensor) -> int:
    """The longest list, a number of the run and not of the trace."""
    # No int() here, which would ask the tracer for the value: while tracing this is a symbol.
    most: int = lengths_N1.max().item()  # type: ignore[assignment]
    torch._check(most >= 0)  # noqa: SLF001 the documented way to bound a size that data decides
    return most


def _int64(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
