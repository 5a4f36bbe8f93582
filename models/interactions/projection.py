"""A projection of its own for wide features, such as an embedding of a text or an image, before any expert reads them.

Without it each expert's first layer projects the whole vector by itself: 256 columns cost eight experts of 64 units
131,000 weights, through 16 columns they cost 12,000.

Shape legend: B rows, D columns, P columns of one feature, R columns that stay as they are.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.schema import DenseSpec
from contract.settings import Settings
from models.input_layout import FeatureColumns

Width = Annotated[int, Field(ge=1)]


class ProjectionConfig(Settings):
    """Linear maps of some features to fewer columns, which all experts and gates read."""

    name: Literal["projection"] = "projection"
    to: Annotated[dict[str, Width], Field(min_length=1)]
    """By feature, such as a vector, to how many columns it is projected."""

    def build(self, features: list[FeatureColumns]) -> nn.Module | None:
        """Build the maps.

        Raises:
            ConfigError: `to` names something that is not a feature.
        """
        columns = {_name(feature): feature.columns for feature in features}
        if unknown := sorted(set(self.to) - set(columns)):
            message = (
                f"model.interaction.to names {', '.join(unknown)}, which are not features; there are: "
                f"{', '.join(columns)}"
            )
            raise ConfigError(message)
        return Projection([columns[name] for name in self.to], tuple(self.to.values()), sum(map(len, columns.values())))

    def width(self, features: list[FeatureColumns]) -> int:
        """Columns of the answer: those of other features, then of each projection."""
        stay = sum(len(feature.columns) for feature in features if _name(feature) not in self.to)
        return stay + sum(self.to.values())


class Projection(nn.Module):
    """Columns that stay, and W_f x_f + b_f of each projected feature f."""

    stay_R: Tensor

    def __init__(self, columns: list[tuple[int, ...]], widths: tuple[int, ...], inputs: int) -> None:
        """Project the features at `columns` of `inputs` to `widths`."""
        super().__init__()
        projected = {column for each in columns for column in each}
        stay = [column for column in range(inputs) if column not in projected]
        self.register_buffer("stay_R", torch.tensor(stay, dtype=torch.int64), persistent=False)
        for place, each in enumerate(columns):
            self.register_buffer(f"columns_{place}", torch.tensor(each), persistent=False)
        self.maps = nn.ModuleList(nn.Linear(len(each), width) for each, width in zip(columns, widths, strict=True))

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, R + the projections' columns]."""
        maps = enumerate(self.maps)
        projected = [layer(x_BD.index_select(1, self.get_buffer(f"columns_{place}"))) for place, layer in maps]
        return torch.cat([x_BD.index_select(1, self.stay_R), *projected], dim=1)


def _name(feature: FeatureColumns) -> str:
    spec = feature.spec
    return spec.vector or spec.name if isinstance(spec, DenseSpec) else spec.name
