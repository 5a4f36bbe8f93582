"""Networks of one shape side by side on a card: one batched product per layer, one batch norm for all.

On a processor one product per network is faster, and that is what the modules' own forward passes do. Here their
parameters are stacked when a step runs, so that checkpoints know nothing of it; gradients go back to each network's
own.

Shape legend: B rows, G networks, D inputs and H outputs of one of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers.batched_product import stacked_linear
from models.layers.mlp import Block


def can_stack(networks: Sequence[nn.Sequential]) -> bool:
    """Whether networks of blocks have one shape, and norms that can be joined."""
    blocks = [block for each in networks for block in each]
    if not all(isinstance(block, Block) and type(block.norm) in {nn.Identity, nn.BatchNorm1d} for block in blocks):
        return False
    return len({tuple(_shape(block) for block in each if isinstance(block, Block)) for each in networks}) == 1


def stacked_blocks(x_GBD: Tensor, blocks: Sequence[Block]) -> Tensor:
    """One layer of all networks, [G, B, D] -> [G, B, H]."""
    linears = [block.linear for block in blocks if isinstance(block.linear, nn.Linear)]
    weight_GHD = torch.stack([linear.weight for linear in linears])
    bias_GH = torch.stack([linear.bias for linear in linears])
    answer_GBH = stacked_linear(x_GBD, weight_GHD, bias_GH)
    first = blocks[0]
    norms = [block.norm for block in blocks if isinstance(block.norm, nn.BatchNorm1d)]
    if norms:
        answer_GBH = joined_batch_norm(answer_GBH, norms)
    # Noise is drawn row by row, so rows come first.
    answer_GBH = first.dropout(first.activation(answer_GBH).transpose(0, 1)).transpose(0, 1)
    return x_GBD + answer_GBH if first.residual else answer_GBH


def joined_batch_norm(x_GBH: Tensor, norms: Sequence[nn.BatchNorm1d]) -> Tensor:
    """Each network's batch norm, all columns in one call; running statistics follow as they would in their own."""
    columns_BH = x_GBH.transpose(0, 1).flatten(1)
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    variances = [norm.running_var for norm in norms if norm.running_var is not None]
    mean, variance = torch.cat(means), torch.cat(variances)
    weight, bias = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
    first = norms[0]
    momentum = 0.1 if first.momentum is None else first.momentum
    normed_BH = functional.batch_norm(columns_BH, mean, variance, weight, bias, first.training, momentum, first.eps)
    if first.training:
        sizes = [len(each) for each in means]
        with torch.no_grad():
            for norm, own_mean, own_variance in zip(norms, mean.split(sizes), variance.split(sizes), strict=True):
                if (
                    norm.running_mean is not None
                    and norm.running_var is not None
                    and norm.num_batches_tracked is not None
                ):
                    norm.running_mean.copy_(own_mean)
                    norm.running_var.copy_(own_variance)
                    norm.num_batches_tracked.add_(1)
    return normed_BH.unflatten(1, (len(norms), -1)).transpose(0, 1)


def _shape(block: Block) -> tuple[object, ...]:
    linear = block.linear
    sizes = (linear.in_features, linear.out_features) if isinstance(linear, nn.Linear) else ()
    return sizes, type(block.norm), type(block.activation), block.dropout.levels, block.residual
