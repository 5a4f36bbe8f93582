"""A part's input columns in the graph: one Gather into the stacked tables, pooled lists, expanded dense scalars.

Ids that are no row of their own table (negative, too large, any int64) read row 0 of that table, never another
feature's row.

Shape legend: N rows of the part, F id features, L list features, D dense features, V packed ids, K embedding dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from features.inputs import PartName
from features.schema import IdSpec
from models.dense import DenseColumns
from models.layout import PartLayout

Tensors = dict[str, Tensor]


class PartLookup(nn.Module):
    """From a part's graph inputs to its columns of the first layer's input."""

    id_offsets_F: Tensor
    id_rows_F: Tensor
    list_offsets_L: Tensor
    list_rows_L: Tensor
    mean_L: Tensor

    def __init__(self, layout: PartLayout, table_offsets: dict[str, int], embedding_dim: int) -> None:
        """Place the part's features in the stacked tables, whose first rows `table_offsets` gives."""
        super().__init__()
        self.part: PartName = layout.name
        self.dim = embedding_dim
        self.ids, self.lists = len(layout.ids), len(layout.lists)
        self.width = layout.width(embedding_dim)
        self.dense = DenseColumns(layout)
        self.has_dense = bool(layout.raw or layout.source)
        self.register_buffer("id_offsets_F", _int64([table_offsets[s.table_name] for s in layout.ids]))
        self.register_buffer("id_rows_F", _int64([s.rows for s in layout.ids]))
        self.register_buffer("list_offsets_L", _int64([table_offsets[s.table_name] for s in layout.lists]))
        self.register_buffer("list_rows_L", _int64([s.rows for s in layout.lists]))
        self.register_buffer("mean_L", torch.tensor([_is_mean(s) for s in layout.lists], dtype=torch.bool))

    def forward(self, table_VK: Tensor, inputs: Tensors) -> Tensor | None:
        """The part's columns [N, width], or None if it has none."""
        columns: list[Tensor] = []
        if self.ids:
            columns.append(functional.embedding(self.known_ids(inputs) + self.id_offsets_F, table_VK).flatten(1))
        if self.lists:
            columns.append(self._pool(table_VK, inputs))
        if self.has_dense:
            columns += self.dense(inputs[f"{self.part}_dense"])
        return torch.cat(columns, dim=1) if columns else None

    def known_ids(self, inputs: Tensors) -> Tensor:
        """The part's ids [N, F], 0 for those that are no row of their table."""
        return _known(inputs[f"{self.part}_ids"], self.id_rows_F)

    def _pool(self, table_VK: Tensor, inputs: Tensors) -> Tensor:
        values_V = inputs[f"{self.part}_list_values"]
        lengths_LN = inputs[f"{self.part}_list_lengths"]
        segment_V = _segments(lengths_LN, values_V)
        feature_V = torch.div(segment_V, lengths_LN.shape[1], rounding_mode="trunc")
        rows_V = _known(values_V, self.list_rows_L.index_select(0, feature_V)) + self.list_offsets_L.index_select(
            0, feature_V
        )
        empty = table_VK.new_zeros(self.lists * lengths_LN.shape[1], self.dim)
        sums_LNK = empty.index_put((segment_V,), table_VK.index_select(0, rows_V), accumulate=True).unflatten(
            0, (self.lists, -1)
        )
        divisor_LN = torch.where(self.mean_L.unsqueeze(1), lengths_LN.clamp(min=1), 1)
        return (sums_LNK / divisor_LN.unsqueeze(2)).transpose(0, 1).flatten(1)


def _segments(lengths_LN: Tensor, values_V: Tensor) -> Tensor:
    # Which list each packed id belongs to, without a loop: mark where lists end and count the marks so far.
    ends = lengths_LN.reshape(-1).cumsum(0)
    marks = torch.zeros(values_V.shape[0] + 1, dtype=torch.int64)
    return marks.index_put((ends,), torch.ones_like(ends), accumulate=True).cumsum(0)[:-1]


def _known(ids: Tensor, rows: Tensor) -> Tensor:
    return torch.where((ids >= 0) & (ids < rows), ids, 0)


def _is_mean(spec: IdSpec) -> bool:
    return spec.pooling == "mean"


def _int64(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
