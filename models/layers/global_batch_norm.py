"""Batch norm over the rows of all ranks, so that training does not depend on how a batch is spread.

Source: Ioffe and Szegedy 2015, "Batch Normalization", algorithm 1, with the mean and the variance of the global batch.
torch's own SyncBatchNorm refuses the CPU.

Shape legend: B rows of this rank, D columns.
"""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from models.row_share import repeated_rows


class GlobalBatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` whose statistics in training are those of all ranks' rows; needs a process group."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.BatchNorm1d's own signature
        """[B, D] -> [B, D]; as `nn.BatchNorm1d` in evaluation."""
        if not self.training:
            return super().forward(input)
        x_BD = input if input.dtype == torch.float64 else input.float()
        own = slice(repeated_rows(), None)
        rows = x_BD.new_full((1,), x_BD[own].shape[0])
        sums = _sum_over_ranks(torch.cat([x_BD[own].sum(0), rows]))
        total = sums[-1].detach()
        mean_D = sums[:-1] / total
        centred_BD = x_BD - mean_D
        # A second sum rather than the mean of squares, which loses the variance of columns with a large mean.
        variance_D = _sum_over_ranks(centred_BD[own].square().sum(0)) / total
        self._follow(mean_D.detach(), variance_D.detach() * (total / (total - 1.0).clamp_min(1.0)))
        scale_D = (variance_D + self.eps).rsqrt()
        if self.affine:
            return (centred_BD * (scale_D * self.weight) + self.bias).to(input.dtype)
        return (centred_BD * scale_D).to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean_D: Tensor, variance_D: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = float(1 / self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_D, share)
        self.running_var.lerp_(variance_D, share)


def over_all_ranks(model: nn.Module) -> None:
    """Turn a model's batch norms, in place, into `GlobalBatchNorm` with the same parameters and statistics."""
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = GlobalBatchNorm


def _sum_over_ranks(values: Tensor) -> Tensor:
    total: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call] # torch leaves it so
    return total


class _SumOverRanks(torch.autograd.Function):
    # The gradient of a sum that every rank reads is the sum of what the ranks' own losses give it.
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004 - torch's own signature
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - torch's own signature
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total
