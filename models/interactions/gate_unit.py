"""A gate neural unit: what is known of the row's context scales other columns, one by one.

Source: Chang et al. 2023, "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
Information", section 3.3.1: delta = gamma * sigmoid(relu(x W + b) W' + b') with gamma = 2. The unit reads the prior
columns and, without sending gradients back, what it scales.

Shape legend: B rows, P prior columns, D columns that the unit sees, W columns that it scales, H hidden units.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class GateUnit(nn.Module):
    """2 * sigmoid(relu(p A + sg(x) C + b) E + e), a factor between 0 and 2 for each column; it starts near 1."""

    def __init__(self, prior: int, seen: int, widths: Sequence[int], hidden: int) -> None:
        """Read `prior` and `seen` columns, and scale groups of columns as wide as `widths`."""
        super().__init__()
        self.prior = nn.Linear(prior, hidden)
        self.seen = nn.Linear(seen, hidden, bias=False)
        self.up = nn.Linear(hidden, sum(widths))
        self.widths = list(widths)
        nn.init.normal_(self.up.weight, std=0.01)
        nn.init.zeros_(self.up.bias)

    def forward(self, prior_BP: Tensor, x_BD: Tensor) -> list[Tensor]:
        """The factors of each group [B, its width]."""
        return self.factors(self.prior(prior_BP), x_BD)

    def factors(self, prior_BH: Tensor, x_BD: Tensor) -> list[Tensor]:
        """The same where the prior columns' share of the hidden units is at hand."""
        hidden_BH = (prior_BH + self.seen(x_BD.detach())).relu()
        return list((2 * self.up(hidden_BH).sigmoid()).split(self.widths, dim=1))
