"""Answers that may only rise, or only fall, with some dense features, whatever else a row holds.

The experts do not see these features. Each task's raw output gains, for every component c_j of such a feature, a slope
that depends on all other features and is never negative:

    sum_j s_j * softplus(w_j . m + b_j) * c_j

where m is the task's mixture and s_j is 1 or -1, divided by how many components the feature has. Components are the
encoded number itself, or its piecewise-linear ones clip(p - j, 0, 1), none of which falls with the number: so the sum
is monotone in it for every m, and in each of several such features. It is a varying-coefficient model (Hastie and
Tibshirani 1993) with positive coefficients; signs by weights of one sign are as in Sill 1997, "Monotonic Networks".

Shape legend: B rows, O columns of a mixture, C components.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_START = -2.0
"""The slopes' starting bias: softplus of it is .13, so a fresh model hardly leans on a feature, whatever its bins."""


class MonotoneTerm(nn.Module):
    """What monotone features add to one task's raw output."""

    signs_C: Tensor

    def __init__(self, inputs: int, signs: Sequence[float]) -> None:
        """Read a mixture of `inputs` columns; `signs` are above 0 where answers rise with a component, else below."""
        super().__init__()
        self.slopes = nn.Linear(inputs, len(signs))
        nn.init.constant_(self.slopes.bias, _START)
        self.register_buffer("signs_C", torch.tensor(signs), persistent=False)

    def forward(self, mixture_BO: Tensor, components_BC: Tensor) -> Tensor:
        """One number per row, [B, 1]."""
        slopes_BC = functional.softplus(self.slopes(mixture_BO)) * self.signs_C
        return (slopes_BC * components_BC.to(slopes_BC.dtype)).sum(dim=1, keepdim=True)
