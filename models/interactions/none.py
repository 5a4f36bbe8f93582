"""No feature interaction before the experts."""

from typing import Literal

from torch import nn

from contract.settings import Settings
from models.input_layout import FeatureColumns


class NoInteractionConfig(Settings):
    """The experts read the input matrix as it is."""

    name: Literal["none"] = "none"

    def build(self, features: list[FeatureColumns]) -> nn.Module | None:
        """Nothing to build."""
        del features
        return None

    def width(self, features: list[FeatureColumns]) -> int:
        """Columns of the answer."""
        return sum(len(feature.columns) for feature in features)
