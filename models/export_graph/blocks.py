"""Blocks of the trained model as they stand in the graph: batch norm folded, dropout gone.

Shape legend: N rows, D inputs, H outputs.
"""

import copy

import torch
from torch import Tensor, nn

from models.experts.expert_mlp import Experts
from models.export_graph.affine import Affine
from models.layers.mlp import Block, GroupedLinear


class Tail(nn.Module):
    """What follows a block's affine map in the graph: a norm that cannot be folded, and the activation."""

    def __init__(self, block: Block, expert: int | None = None, count: int = 1) -> None:
        """Take the whole block's tail, or that of one of `count` experts side by side."""
        super().__init__()
        self.norm = _remaining_norm(block.norm, expert, count)
        self.activation = copy.deepcopy(block.activation)

    def forward(self, x_NH: Tensor) -> Tensor:
        """[N, H] -> [N, H]."""
        answer: Tensor = self.activation(self.norm(x_NH))
        return answer


class Folded(nn.Module):
    """An affine map and its tail, added to their input in a residual block."""

    def __init__(self, affine: Affine, tail: Tail, *, residual: bool) -> None:
        """Fold the map to a float32 layer."""
        super().__init__()
        self.linear, self.tail, self.residual = folded(affine), tail, residual

    def forward(self, x_ND: Tensor) -> Tensor:
        """[N, D] -> [N, H]."""
        answer: Tensor = self.tail(self.linear(x_ND))
        return x_ND + answer if self.residual else answer


class ScaledInput(nn.Module):
    """The input's batch norm where it cannot be folded into the layer that follows."""

    scale_D: Tensor
    shift_D: Tensor

    def __init__(self, norm: nn.Module, width: int) -> None:
        """Take the norm's map of `width` columns."""
        super().__init__()
        identity = Affine(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)).before(norm)
        self.register_buffer("scale_D", identity.weight_HD.diagonal().float())
        self.register_buffer("shift_D", identity.bias_H.float())

    def forward(self, x_ND: Tensor) -> Tensor:
        """[N, D] -> [N, D]."""
        return x_ND * self.scale_D + self.shift_D


def folded(affine: Affine) -> nn.Linear:
    """An affine map as a float32 layer."""
    layer = nn.Linear(affine.weight_HD.shape[1], affine.weight_HD.shape[0])
    layer.weight.data.copy_(affine.weight_HD)
    layer.bias.data.copy_(affine.bias_H)
    return layer.requires_grad_(requires_grad=False)


def affine_of(block: Block) -> Affine:
    """A plain block's map with its batch norm folded in."""
    assert isinstance(block.linear, nn.Linear)  # noqa: S101 plain blocks are built so; this tells the type checker
    return Affine.of(block.linear.weight, block.linear.bias).before(block.norm)


def folded_mlp(blocks: list[Block]) -> nn.Sequential:
    """Plain blocks for the graph."""
    return nn.Sequential(*(Folded(affine_of(block), Tail(block), residual=block.residual) for block in blocks))


def expert_block(experts: Experts, layer: int) -> Block:
    """One layer of all experts."""
    block = experts.blocks[layer]
    assert isinstance(block, Block)  # noqa: S101 experts hold blocks; this tells the type checker
    return block


def expert_affines(experts: Experts, layer: int) -> list[Affine]:
    """Each expert's own map in one layer, with its share of the batch norm folded in."""
    block = expert_block(experts, layer)
    linear = block.linear
    if isinstance(linear, GroupedLinear):
        whole = Affine.of(linear.weight_EHD.flatten(0, 1), linear.bias_EH.flatten()).before(block.norm)
    else:
        whole = affine_of(block)
    width = whole.bias_H.shape[0] // experts.count
    return [whole.rows(e * width, (e + 1) * width) for e in range(experts.count)]


def expert_tail(experts: Experts, expert: int, layer: int) -> Tail:
    """What follows one expert's map in one layer."""
    return Tail(expert_block(experts, layer), expert, experts.count)


def _remaining_norm(norm: nn.Module, expert: int | None, count: int) -> nn.Module:
    if not isinstance(norm, nn.GroupNorm):
        return nn.Identity()
    width = norm.num_channels // count
    span = slice(0, norm.num_channels) if expert is None else slice(expert * width, (expert + 1) * width)
    layer = nn.LayerNorm(span.stop - span.start, eps=norm.eps)
    layer.weight.data.copy_(norm.weight.data[span])
    layer.bias.data.copy_(norm.bias.data[span])
    return layer.requires_grad_(requires_grad=False)
