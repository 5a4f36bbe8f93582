"""Dense features as input columns: raw scalars, and piecewise-linear positions expanded to their components.

Source: Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep Learning", equation 1.

Shape legend: B rows, D dense features, W columns.
"""

import torch
from torch import Tensor, nn

from models.input_layout import PartLayout


class DenseColumns(nn.Module):
    """A part's dense scalars [B, D] to columns [B, W]: the raw ones, the expanded ones, then the marks of nulls."""

    raw: Tensor
    source: Tensor
    lower: Tensor
    nulls: Tensor

    def __init__(self, layout: PartLayout) -> None:
        """Keep the layout's indices as buffers that no checkpoint holds: the schema fixes them."""
        super().__init__()
        self.register_buffer("raw", torch.tensor(layout.raw, dtype=torch.int64), persistent=False)
        self.register_buffer("source", torch.tensor(layout.source, dtype=torch.int64), persistent=False)
        self.register_buffer("lower", torch.tensor(layout.lower, dtype=torch.float32), persistent=False)
        self.register_buffer("nulls", torch.tensor(layout.nulls, dtype=torch.int64), persistent=False)
        self.has_raw, self.has_expanded, self.has_nulls = bool(layout.raw), bool(layout.source), bool(layout.nulls)

    def forward(self, dense_BD: Tensor) -> list[Tensor]:
        """The columns as up to three matrices, to be joined by the caller."""
        columns = []
        if self.has_raw:
            columns.append(dense_BD.index_select(1, self.raw))
        if self.has_expanded:
            columns.append((dense_BD.index_select(1, self.source) - self.lower).clamp(0.0, 1.0))
        if self.has_nulls:
            columns.append((-dense_BD.index_select(1, self.nulls)).clamp(0.0, 1.0))
        return columns
