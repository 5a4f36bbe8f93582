"""Routed training on a card: one grouped product per layer over rows sorted by expert, without waiting for the host.

How many rows an expert gets is data, which a processor reads between layers (`models.experts.sparse_training`); a card
would stand still for that. Here each gate's slots give a number of pairs of row and expert that the batch size fixes, a
sort brings them expert by expert, and the bounds stay on the device. A slot that a row leaves empty has weight 0.

Source: torch.nn.functional.grouped_mm; Gale et al. 2023, "MegaBlocks: Efficient Sparse Training with
Mixture-of-Experts", section 4, for the sort.

Shape legend: B rows, D inputs, E experts of a bank, G gates, S slots of all gates, O outputs, M = B * S pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.experts.expert_mlp import Experts
from models.gates import Routing
from models.layers.mlp import Block, GroupedLinear

MULTIPLE = 8
"""Widths in bfloat16 that the grouped product takes: its operands' rows lie at 16 bytes."""
CROSSOVER = 0.5
"""The share of pairs below which it is used; above, all experts are one batched product."""


class Slots(NamedTuple):
    """A gate's part in a bank: how many of the bank's experts one row may take by it."""

    gate: int
    most: int


def fits(experts: Sequence[Experts]) -> bool:
    """Whether the experts' layers can be grouped products."""
    blocks = [block for each in experts for block in each.typed_blocks]
    widths = [size for block in blocks for size in _widths(block.linear)]
    return all(size % MULTIPLE == 0 for size in widths) and not any(
        isinstance(module, nn.BatchNorm1d) for block in blocks for module in block.modules()
    )


def pays(experts: Sequence[Experts], slots: Sequence[Sequence[Slots]], device: str) -> bool:
    """Whether the grouped product is taken: in bfloat16, for few enough pairs, and widths that it has kernels for."""
    bf16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.bfloat16
    pairs = sum(each.most for own in slots for each in own)
    return bf16 and fits(experts) and pairs <= CROSSOVER * sum(each.count for each in experts)


def mix_grouped(
    experts: Sequence[Experts], inputs: Sequence[Tensor], routings: Sequence[Routing], slots: Sequence[Sequence[Slots]]
) -> Tensor:
    """Mixtures [G, B, O] of the selected experts; `slots` are those of each bank."""
    rows, outputs = inputs[0].shape[0], experts[0].outputs
    mixtures = [inputs[0].new_zeros(rows, outputs, dtype=torch.float32) for _ in routings]
    first = 0
    for bank, x_BD, own in zip(experts, inputs, slots, strict=True):
        span = slice(first, first + bank.count)
        tops = [routings[gate].weights_BE.expand(rows, -1)[:, span].topk(count, dim=1) for gate, count in own]
        answers_BSO = _answers(bank, x_BD, torch.cat([top.indices for top in tops], dim=1))
        for (gate, _), top, part in zip(own, tops, answers_BSO.split([count for _, count in own], dim=1), strict=True):
            mixtures[gate] = mixtures[gate] + torch.einsum("bs,bso->bo", top.values.to(part.dtype), part)
        first += bank.count
    return torch.stack(mixtures).to(answers_BSO.dtype)


def _answers(bank: Experts, x_BD: Tensor, experts_BS: Tensor) -> Tensor:
    """The answers [B, S, O] of each row's experts."""
    slots = experts_BS.shape[1]
    sorted_M, order_M = experts_BS.flatten().sort(stable=True)
    numbers_E = torch.arange(bank.count, device=x_BD.device)
    ends_E = torch.searchsorted(sorted_M, numbers_E, right=True).to(torch.int32)
    x_MD = x_BD.index_select(0, order_M // slots)
    for block in bank.typed_blocks:
        x_MD = _run_block(block, x_MD, sorted_M, ends_E, bank.count)
    # Each pair back to its place: the sort's inverse.
    back_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M), device=x_BD.device))
    return x_MD.index_select(0, back_M).unflatten(0, (-1, slots))


def _run_block(block: Block, x_MD: Tensor, experts_M: Tensor, ends_E: Tensor, count: int) -> Tensor:
    linear = block.linear
    if isinstance(linear, GroupedLinear):
        weight_EHD, bias_EH = linear.weight_EHD, linear.bias_EH
    else:
        weight_EHD, bias_EH = linear.weight.unflatten(0, (count, -1)), linear.bias.unflatten(0, (count, -1))
    dtype = torch.get_autocast_dtype(x_MD.device.type) if torch.is_autocast_enabled(x_MD.device.type) else x_MD.dtype
    weight_EDH = weight_EHD.to(dtype).transpose(1, 2)
    answer_MH = functional.grouped_mm(x_MD.to(dtype), weight_EDH, offs=ends_E) + bias_EH.to(dtype)[experts_M]
    if isinstance(block.norm, nn.GroupNorm):
        scale_EH, shift_EH = (each.unflatten(0, (count, -1)) for each in (block.norm.weight, block.norm.bias))
        normed_MH = functional.layer_norm(answer_MH.float(), answer_MH.shape[-1:], eps=block.norm.eps)
        answer_MH = (normed_MH * scale_EH[experts_M] + shift_EH[experts_M]).to(dtype)
    answer_MH = block.dropout(block.activation(answer_MH))
    return x_MD + answer_MH if block.residual else answer_MH


def _widths(linear: nn.Linear | GroupedLinear) -> tuple[int, int]:
    if isinstance(linear, GroupedLinear):
        return linear.inputs, linear.weight_EHD.shape[1]
    return linear.in_features, linear.out_features
