"""Cross layers: explicit products of features, one degree more a layer.

Source: Wang et al. 2021, "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems", equation 1, and section 4.2 for the low-rank form.

Shape legend: B rows, D columns, K rank.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from contract.settings import Settings
from models.input_layout import FeatureColumns


class CrossNetworkConfig(Settings):
    """Cross layers, stacked before the experts."""

    name: Literal["dcn_v2"] = "dcn_v2"
    layers: Annotated[int, Field(ge=1)] = 2
    """Cross layers."""
    rank: Annotated[int, Field(ge=0)] = 0
    """The rank of their matrices; 0: full rank."""

    def build(self, features: list[FeatureColumns]) -> nn.Module | None:
        """Build the layers over all columns."""
        return Cross(self.width(features), self.layers, self.rank)

    def width(self, features: list[FeatureColumns]) -> int:
        """Columns of the answer: those of the input."""
        return sum(len(feature.columns) for feature in features)


class Cross(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l."""

    def __init__(self, width: int, layers: int, rank: int) -> None:
        """Make `layers` maps of `width` columns, through `rank` columns if positive."""
        super().__init__()
        self.maps = nn.ModuleList(_map(width, rank) for _ in range(layers))

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        crossed = x_BD
        for layer in self.maps:
            crossed = x_BD * layer(crossed) + crossed
        return crossed


def _map(width: int, rank: int) -> nn.Module:
    if rank == 0:
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
