"""A low-rank gate on the columns that a set of experts reads.

Source: Wang et al. 2024, "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", section 3.3: the
input is multiplied by a mixture, softmax-weighed by row, of low-rank maps 2 * sigmoid(x B A).

Shape legend: B rows, D columns, G maps, R rank.
"""

import torch
from torch import Tensor, nn


class FeatureGate(nn.Module):
    """x * sum_g softmax(x W)_g * 2 sigmoid(x B_g A_g), so that a gate of zero logits changes nothing."""

    def __init__(self, width: int, rank: int, gates: int) -> None:
        """Make `gates` maps of `width` columns and rank `rank`; they start near the identity."""
        super().__init__()
        self.gates = gates
        self.down = nn.Linear(width, gates * rank, bias=False)
        self.up_GRD = nn.Parameter(torch.randn(gates, rank, width) * 0.01)
        self.choice = nn.Linear(width, gates)

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, D]."""
        low_GBR = self.down(x_BD).unflatten(1, (self.gates, -1)).transpose(0, 1)
        maps_GBD = 2 * torch.bmm(low_GBR, self.up_GRD.to(low_GBR.dtype)).sigmoid()
        weights_GB1 = self.choice(x_BD).softmax(-1).t().unsqueeze(2)
        return x_BD * (weights_GB1 * maps_GBD).sum(0)
