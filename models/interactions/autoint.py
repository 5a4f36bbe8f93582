"""Self-attention over features.

Source: Song et al. 2019, "AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks",
section 4.4, equations 5 to 8. A dense feature becomes a vector by its own linear map of its columns (section 4.3).

Shape legend: B rows, D columns, F features, W columns of a feature, K width of a feature's vector, H heads, A width of
a head.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from contract.settings import Settings
from models.input_layout import FeatureColumns

Count = Annotated[int, Field(ge=1)]


class AutoIntConfig(Settings):
    """Self-attention between features; its outputs stand beside the input's columns."""

    name: Literal["autoint"] = "autoint"
    layers: Count = 1
    """Attention layers, one on top of the other."""
    heads: Count = 2
    """Attention heads of a layer."""
    head_width: Count = 8
    """Columns of a head."""

    def build(self, features: list[FeatureColumns]) -> nn.Module | None:
        """Build the attention over all features."""
        return AutoInt(self, features)

    def width(self, features: list[FeatureColumns]) -> int:
        """Columns of the answer: the input's, then H x A for each feature."""
        return sum(len(f.columns) for f in features) + len(features) * self.heads * self.head_width


class AutoInt(nn.Module):
    """Features as vectors, attended to by each other."""

    def __init__(self, config: AutoIntConfig, features: list[FeatureColumns]) -> None:
        """Make the features' maps and the layers."""
        super().__init__()
        width = config.heads * config.head_width
        self.fields = _Fields([feature.columns for feature in features], width)
        self.layers = nn.ModuleList(_Attention(width, config.heads) for _ in range(config.layers))

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D + F * H * A]."""
        fields_BFK = self.fields(x_BD)
        for layer in self.layers:
            fields_BFK = layer(fields_BFK)
        return torch.cat([x_BD, fields_BFK.flatten(1)], dim=1)


class _Fields(nn.Module):
    """A linear map a feature, one batched product for all features of as many columns."""

    def __init__(self, columns: list[tuple[int, ...]], width: int) -> None:
        super().__init__()
        self.counts = sorted({len(each) for each in columns})
        self.weights = nn.ParameterList()
        for count in self.counts:
            alike = [each for each in columns if len(each) == count]
            self.register_buffer(f"columns_{count}", torch.tensor(alike).flatten(), persistent=False)
            self.weights.append(nn.Parameter(torch.randn(len(alike), count, width) * count**-0.5))

    def forward(self, x_BD: Tensor) -> Tensor:
        """Vectors [B, F, K], features of fewer columns first."""
        vectors = []
        for count, weight_FWK in zip(self.counts, self.weights, strict=True):
            taken_BFW = x_BD.index_select(1, self.get_buffer(f"columns_{count}")).unflatten(1, (-1, count))
            vectors.append(torch.bmm(taken_BFW.transpose(0, 1), weight_FWK.to(x_BD.dtype)).transpose(0, 1))
        return torch.cat(vectors, dim=1)


class _Attention(nn.Module):
    """One interacting layer: every feature's vector becomes a mixture of all, plus a linear map of itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.maps = nn.Linear(width, 4 * width, bias=False)

    def forward(self, fields_BFK: Tensor) -> Tensor:
        query, key, value, own = self.maps(fields_BFK).chunk(4, dim=2)
        query_BHFA, key_BHFA, value_BHFA = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in (query, key, value)
        )
        # As published, products are not scaled by the width of a head.
        weights_BHFF = (query_BHFA @ key_BHFA.transpose(2, 3)).softmax(-1)
        mixed_BFK = (weights_BHFF @ value_BHFA).transpose(1, 2).flatten(2)
        answer: Tensor = torch.relu(mixed_BFK + own)
        return answer
