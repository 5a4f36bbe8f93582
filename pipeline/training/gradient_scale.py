"""A factor on the loss that keeps float16 gradients above the smallest number they can hold.

Source: Micikevicius et al. 2018, "Mixed Precision Training", section 3.2, with a factor that follows the gradients:
halved after an overflow, whose step is left out, and doubled after many steps without one.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_START, _GROW_AFTER = 2.0**14, 1000


class GradientScale:
    """The factor and the steps since it last changed, kept in a checkpoint."""

    def __init__(self, device: torch.device) -> None:
        """Start at 2^14."""
        self.state = {"factor": torch.tensor(_START, device=device), "steps": torch.tensor(0, device=device)}

    @property
    def factor(self) -> Tensor:
        """What losses are multiplied by."""
        return self.state["factor"]

    def unscale(self, gradients: Iterable[Tensor]) -> None:
        """Divide gradients by the factor, in place."""
        for gradient in gradients:
            gradient.div_(self.factor)

    def follow(self, *, overflow: bool) -> bool:
        """Adapt the factor after a step; False: it is below 1, so that the fault is not the format's."""
        if overflow:
            self.factor.div_(2.0)
            self.state["steps"].zero_()
            return bool(self.factor >= 1.0)
        self.state["steps"].add_(1)
        if int(self.state["steps"]) >= _GROW_AFTER:
            self.factor.mul_(2.0)
            self.state["steps"].zero_()
        return True
