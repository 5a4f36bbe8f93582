"""Layers in blocks of Linear, norm, activation and dropout, plain or for many experts side by side.

Shape legend: B rows, D inputs, E experts, H outputs of one expert.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers.aligned_linear import AlignedLinear
from models.layers.batched_product import stacked_linear, stacks
from models.layers.dropout import Dropout

Activation = Literal["relu", "gelu", "silu"]
Norm = Literal["none", "batch", "layer"]
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class BlockConfig(NamedTuple):
    """What the layers of a network have in common."""

    activation: Activation
    norm: Norm
    dropout: float
    residual: bool


class GroupedLinear(nn.Module):
    """One Linear an expert, each on its own slice: [B, E * D] -> [B, E * H].

    A Gemm an expert: on CPU this beats one batched product of stacked weights, which is what a card is given.
    """

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        """Initialise each expert as `torch.nn.Linear` does (He et al. 2015, with gain 1 / sqrt 3)."""
        super().__init__()
        self.inputs = inputs
        bound = inputs**-0.5
        self.weight_EHD = nn.Parameter(torch.empty(groups, outputs, inputs).uniform_(-bound, bound))
        self.bias_EH = nn.Parameter(torch.empty(groups, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Apply expert e to columns e * D to (e + 1) * D."""
        if stacks(x):
            x_EBD = x.unflatten(1, (-1, self.inputs)).transpose(0, 1)
            return stacked_linear(x_EBD, self.weight_EHD, self.bias_EH).transpose(0, 1).flatten(1)
        slices = x.split(self.inputs, dim=1)
        weights, biases = self.weight_EHD.unbind(), self.bias_EH.unbind()
        return torch.cat([functional.linear(s, w, b) for s, w, b in zip(slices, weights, biases, strict=True)], dim=1)


class Block(nn.Module):
    """Linear, norm, activation, dropout.

    With `groups` experts the norm is each expert's own: batch norm is so by nature, and layer norm over one
    expert's slice is group norm.
    """

    def __init__(
        self,
        linear: nn.Linear | GroupedLinear,
        width: int,
        config: BlockConfig,
        groups: int = 1,
        *,
        residual: bool = False,
    ) -> None:
        """Build the block around a linear layer of `width` outputs in all; `residual` adds the block's input."""
        super().__init__()
        self.linear = linear
        self.norm = _norm(config.norm, width, groups)
        self.activation = _ACTIVATIONS[config.activation]()
        self.dropout = Dropout(config.dropout)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, width]."""
        answer: Tensor = self.dropout(self.activation(self.norm(self.linear(x))))
        return x + answer if self.residual else answer


def _norm(kind: Norm, width: int, groups: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm1d(width)
    return nn.GroupNorm(groups, width) if kind == "layer" else nn.Identity()


def mlp(inputs: int, widths: tuple[int, ...], config: BlockConfig) -> nn.Sequential:
    """One block per width; without widths, the identity."""
    blocks: list[nn.Module] = []
    for place, (before, width) in enumerate(zip((inputs, *widths), widths, strict=False)):
        # Not around the first layer: its input is another space, and the graph splits it by part.
        residual = config.residual and place > 0 and before == width
        blocks.append(Block(AlignedLinear(before, width), width, config, residual=residual))
    return nn.Sequential(*blocks)
