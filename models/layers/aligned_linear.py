"""A wide linear layer whose gradients a processor computes by vectors, however many columns it reads.

In float32 a matrix product whose rows do not begin at multiples of 32 bytes takes half as long again: of 330 columns,
4,096 rows and 2,048 outputs, each gradient 95 ms, of 336 columns 63 ms (AMD EPYC, one thread). A layer's input is as
wide as the features make it, so training pads it, and the weights, with zeros.

Shape legend: B rows, D inputs, H outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

COLUMNS = 8
"""Of float32, 32 bytes."""
_FEWEST_OUTPUTS = 256
"""With fewer, the copy of the input costs more than it spares."""


class AlignedLinear(nn.Linear):
    """A linear layer whose products are padded in training where that is faster; its weights are as they are.

    Example:
        >>> AlignedLinear(3, 4)(torch.ones(2, 3)).shape
        torch.Size([2, 4])
    """

    def forward(self, x_BD: Tensor) -> Tensor:
        """[B, D] -> [B, H]."""
        missing = -self.in_features % COLUMNS
        if not missing or not self.training or self.out_features < _FEWEST_OUTPUTS or not _is_plain(x_BD):
            return functional.linear(x_BD, self.weight, self.bias)
        wide_BD, wide_HD = (functional.pad(each, (0, missing)) for each in (x_BD, self.weight))
        return functional.linear(wide_BD, wide_HD, self.bias)


def _is_plain(x: Tensor) -> bool:
    """Whether products over it are of float32 on a processor; in bfloat16 the number of columns is all one."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
