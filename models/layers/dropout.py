"""Dropout whose random numbers cost an eighth on the CPU.

There the generator, one number per element, took a fifth of a training step. Here one 64-bit number serves eight
elements, a byte each, so the rate is rounded to a multiple of 1/256; the expectation is kept exactly.
"""

from functools import cache, partial
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.row_share import draw_rows, is_shared

_LEVELS = 256
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By bytes of a number."""


class Dropout(nn.Module):
    """Zero elements at a rate in training and scale the others up; the device's own dropout elsewhere than on CPU."""

    def __init__(self, rate: float) -> None:
        """Round the rate to a multiple of 1/256, but not to 1."""
        super().__init__()
        self.levels = min(round(rate * _LEVELS), _LEVELS - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; the identity in evaluation and at rate 0."""
        if not self.training or self.levels == 0:
            return x
        rate = self.levels / _LEVELS
        if x.device.type != "cpu":
            if not is_shared():
                return functional.dropout(x, rate, training=True)
            is_kept = draw_rows(partial(torch.rand, device=x.device), x.shape) >= rate
        else:
            is_kept = draw_rows(partial(_drawn_to_stay, levels=self.levels), x.shape)
        return x * scaled_mask(is_kept, 1.0 / (1.0 - rate), x.dtype)

    def extra_repr(self) -> str:
        """The rate, for printing."""
        return f"rate={self.levels / _LEVELS:.4g}"


def scaled_mask(is_kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """`scale` in `dtype` where bool `is_kept` says so, else 0: a product of integers, as wide as the numbers are.

    On the CPU torch turns bools into floats one by one; into integers it does so by vectors, at a tenth of the time.

    Example:
        >>> scaled_mask(torch.tensor([True, False]), 1.5, torch.bfloat16)
        tensor([1.5000, 0.0000], dtype=torch.bfloat16)
    """
    return is_kept.to(_INTEGERS[dtype.itemsize]).mul_(_bits(scale, dtype)).view(dtype)


@cache
def _bits(scale: float, dtype: torch.dtype) -> int:
    return int(torch.tensor(scale, device="cpu").to(dtype).view(_INTEGERS[dtype.itemsize]))


@torch.compiler.disable  # type: ignore[untyped-decorator] # torch leaves it so
def _drawn_to_stay(shape: tuple[int, ...], levels: int) -> Tensor:
    """True where a random byte is `levels` or more.

    NumPy's generator takes half of the time of torch's, whose seed it gets, and its comparison of bytes a seventh.
    """
    numbers = prod(shape)
    seed = np.empty(1, np.int64)
    torch.from_numpy(seed).random_(0, 2**62)
    words = np.random.SFC64(seed).random_raw(-(-numbers // 8))
    return torch.from_numpy(words.view(np.uint8)[:numbers] >= levels).view(shape)
