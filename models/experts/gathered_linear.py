"""One linear layer per expert, each on some rows of one input: gathered, multiplied and added back expert by expert.

Gathering all experts' rows at once would write and read the whole of them twice more, and so would their gradient; one
expert's rows fit into a core's cache.

Shape legend: B rows, D inputs, H outputs of one expert, O those of all, M (row, expert) pairs, expert by expert, m
those of one expert.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gathered_linear(
    x_BD: Tensor, weight_OD: Tensor, bias_O: Tensor, row_M: Tensor, counts: Sequence[int]
) -> list[Tensor]:
    """Each expert's answers [m, H] for its rows of `x_BD`; expert e has outputs e * H and on of the parameters."""
    if torch.is_autocast_enabled(x_BD.device.type):
        kind = torch.get_autocast_dtype(x_BD.device.type)
        x_BD, weight_OD, bias_O = x_BD.to(kind), weight_OD.to(kind), bias_O.to(kind)
    answers: tuple[Tensor, ...] = _Gathered.apply(  # type: ignore[no-untyped-call]
        x_BD, weight_OD, bias_O, row_M, tuple(counts)
    )
    return list(answers)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BD: Tensor, weight_OD: Tensor, bias_O: Tensor, row_M: Tensor, counts: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        answers, taken = [], []
        layers = zip(weight_OD.chunk(len(counts)), bias_O.chunk(len(counts)), strict=True)
        for row_m, (weight_HD, bias_H) in zip(row_M.split(counts), layers, strict=True):
            taken.append(x_BD.index_select(0, row_m))
            answers.append(torch.addmm(bias_H, taken[-1], weight_HD.t()))
        ctx.counts, ctx.shape = counts, x_BD.shape
        ctx.save_for_backward(weight_OD, row_M, *taken)
        return tuple(answers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight_OD, row_M, *taken = ctx.saved_tensors
        grad_x_BD = weight_OD.new_zeros(ctx.shape) if ctx.needs_input_grad[0] else None
        grad_weight_OD = torch.empty_like(weight_OD)
        layers = zip(weight_OD.chunk(len(grads)), grad_weight_OD.chunk(len(grads)), strict=True)
        rows = zip(row_M.split(ctx.counts), taken, grads, strict=True)
        for (row_m, x_mD, grad_mH), (weight_HD, grad_weight_HD) in zip(rows, layers, strict=True):
            torch.mm(grad_mH.t(), x_mD, out=grad_weight_HD)
            if grad_x_BD is not None:
                grad_x_BD.index_add_(0, row_m, grad_mH @ weight_HD)
        return grad_x_BD, grad_weight_OD, torch.cat([grad_mH.sum(0) for grad_mH in grads]), None, None
