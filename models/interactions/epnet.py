"""Embeddings scaled by the domain that a row belongs to.

Source: Chang et al. 2023, "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
Information", section 3.3.2 (EPNet): the domain's features scale every column of the shared input. The personal gates of
the towers (PPNet) are `model.personal_gates`.

Shape legend: B rows, D columns, P columns of the domain's features.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from contract.settings import Settings
from models.input_layout import FeatureColumns, columns_of
from models.interactions.gate_unit import GateUnit


class EPNetConfig(Settings):
    """A gate by some features, such as the page on which a candidate stands, on all columns."""

    name: Literal["epnet"] = "epnet"
    by: Annotated[tuple[str, ...], Field(min_length=1)]
    """The features that tell the domain."""
    hidden: Annotated[int, Field(ge=1)] = 32
    """Hidden units of the gate."""

    def build(self, features: list[FeatureColumns]) -> nn.Module | None:
        """Build the gate over all columns.

        Raises:
            ConfigError: `by` names something that is not a feature.
        """
        return EPNet(columns_of(features, self.by, "model.interaction.by"), self.width(features), self.hidden)

    def width(self, features: list[FeatureColumns]) -> int:
        """Columns of the answer: those of the input."""
        return sum(len(feature.columns) for feature in features)


class EPNet(nn.Module):
    """x * gate(domain, sg(x))."""

    columns_P: Tensor

    def __init__(self, columns: list[int], width: int, hidden: int) -> None:
        """Scale `width` columns by those at `columns`."""
        super().__init__()
        self.register_buffer("columns_P", torch.tensor(columns), persistent=False)
        self.gate = GateUnit(len(columns), width, (width,), hidden)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        (factor_BD,) = self.gate(x_BD.index_select(1, self.columns_P), x_BD)
        return x_BD * factor_BD
