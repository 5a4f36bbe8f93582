"""Conditional computation in training: each expert runs on the rows that selected it, forward and backward.

The answers equal those of the dense computation up to rounding, gradients included: a weight that is exactly 0 passes
nothing on, either way. Batch norm is the exception, since its statistics would be of fewer rows: such experts are
always computed for all.

Shape legend: B rows, D inputs, E experts of the level, G gates, O outputs of one expert, M computed (row, expert)
pairs, expert by expert, m those of one gate.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.errors import ConfigError
from models.experts.expert_mlp import Experts
from models.experts.gathered_linear import gathered_linear
from models.gates import Routing
from models.layers.mlp import Block, GroupedLinear

CROSSOVER = 0.5
"""Sparse wins below this share of computed pairs, on a CPU; see benchmarks/sparse_training.md."""
_FEWEST_ROWS = 16
"""Rows an expert should see on average before sparse is worth its overhead."""


class Execution:
    """Whether a level computes all experts or the selected ones."""

    def __init__(self, mode: Literal["auto", "on", "off"], experts: Sequence[Experts]) -> None:
        """Take the configuration's wish.

        Raises:
            ConfigError: `on` with experts that have batch norm.
        """
        self.possible = not any(isinstance(module, nn.BatchNorm1d) for each in experts for module in each.modules())
        if mode == "on" and not self.possible:
            message = (
                "model.sparse_training is on, but batch norm in the experts would see other rows than in the dense "
                "computation: set model.norm to layer or none, or sparse_training to auto"
            )
            raise ConfigError(message)
        self.mode = mode

    def is_sparse(self, routings: Sequence[Routing], rows: int) -> bool:
        """Decide for one batch by the pairs that its routing selects."""
        if self.mode == "off" or not self.possible or not routings:
            return False
        if self.mode == "on":
            return True
        with torch.no_grad():
            union_BE = union_of(routings)
            share = float(union_BE.double().mean())
        if union_BE.shape[0] == 1:
            # Static gates: the experts left out cost nothing, and those that stay are computed as ever.
            return share < 1.0
        return share <= CROSSOVER and share * rows >= _FEWEST_ROWS


def union_of(routings: Sequence[Routing]) -> Tensor:
    """Which experts at least one gate selects, bool [B, E], or [1, E] if all gates are static."""
    union_BE = routings[0].selected_BE
    for routing in routings[1:]:
        union_BE = union_BE | routing.selected_BE
    return union_BE


def mix_sparsely(experts: Sequence[Experts], inputs: Sequence[Tensor], routings: Sequence[Routing]) -> Tensor:
    """Mixtures [G, B, O] of the selected experts; `experts` read the `inputs` [B, D] of their places."""
    union_BE = union_of(routings)
    if union_BE.shape[0] == 1:
        return _mix_columns(experts, inputs, routings, union_BE[0].tolist())
    rows = inputs[0].shape[0]
    union_EB = union_BE.expand(rows, -1).t().contiguous()
    row_M = union_EB.nonzero()[:, 1]
    answers_MO = torch.cat(_answers(experts, inputs, row_M, union_EB.sum(1).tolist()))
    if len(routings) == 1:
        return _scatter(answers_MO, row_M, routings[0], rows).unsqueeze(0)
    mixtures = []
    for routing in routings:
        # Only the gate's own pairs: with a gate per task, most pairs of the union are another's.
        own_m = routing.selected_BE.expand(rows, -1).t().masked_select(union_EB).nonzero().squeeze(1)
        mixtures.append(_scatter(answers_MO.index_select(0, own_m), row_M[own_m], routing, rows))
    return torch.stack(mixtures)


def _answers(experts: Sequence[Experts], inputs: Sequence[Tensor], row_M: Tensor, counts: list[int]) -> list[Tensor]:
    answers, first, pair = [], 0, 0
    for each, x_BD in zip(experts, inputs, strict=True):
        own = counts[first : first + each.count]
        entry, *rest = each.typed_blocks
        assert isinstance(entry.linear, nn.Linear)  # noqa: S101 the first layer is; this tells the type checker
        hidden = gathered_linear(x_BD, entry.linear.weight, entry.linear.bias, row_M[pair : pair + sum(own)], own)
        hidden = _finish(entry, hidden, each.count)
        for block in rest:
            hidden = _run_block(block, hidden, each.count)
        answers += hidden
        first, pair = first + each.count, pair + sum(own)
    return answers


def _scatter(answers_mO: Tensor, row_m: Tensor, routing: Routing, rows: int) -> Tensor:
    # A mask picks in the order of its own elements, which is that of the pairs: expert by expert, then row by row.
    weights_BE, selected_BE = routing.weights_BE.expand(rows, -1), routing.selected_BE.expand(rows, -1)
    weights_m1 = weights_BE.t().masked_select(selected_BE.t()).to(answers_mO.dtype).unsqueeze(1)
    empty_BO = answers_mO.new_zeros(rows, answers_mO.shape[1])
    return empty_BO.index_add(0, row_m, answers_mO * weights_m1)


def _mix_columns(
    experts: Sequence[Experts], inputs: Sequence[Tensor], routings: Sequence[Routing], used_E: list[bool]
) -> Tensor:
    # Static gates: some experts for all rows, the others for none, but in the graph all the same: data-parallel
    # training expects a gradient for every parameter.
    answers, first = [], 0
    for each, x_BD in zip(experts, inputs, strict=True):
        used = used_E[first : first + each.count]
        answers += _run_each(each, [x_BD if use else x_BD[:0] for use in used])
        first += each.count
    used_experts = [e for e, use in enumerate(used_E) if use]
    weights_GE = torch.cat([routing.weights_BE for routing in routings])[:, used_experts]
    kept_EBO = torch.stack([answers[e] for e in used_experts])
    mixtures_GBO = torch.einsum("ge,ebo->gbo", weights_GE.to(kept_EBO.dtype), kept_EBO)
    idle = sum((answers[e].sum() for e, use in enumerate(used_E) if not use), mixtures_GBO.new_zeros(()))
    return mixtures_GBO + idle


def _run_each(experts: Experts, inputs: Sequence[Tensor]) -> list[Tensor]:
    hidden = list(inputs)
    for block in experts.typed_blocks:
        hidden = _run_block(block, hidden, experts.count)
    return hidden


def _run_block(block: Block, inputs: list[Tensor], count: int) -> list[Tensor]:
    linear = block.linear
    if isinstance(linear, GroupedLinear):
        weights, biases = linear.weight_EHD.unbind(), linear.bias_EH.unbind()
    else:
        weights, biases = linear.weight.chunk(count), linear.bias.chunk(count)
    hidden = [functional.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
    answers = _finish(block, hidden, count)
    return [x + y for x, y in zip(inputs, answers, strict=True)] if block.residual else answers


def _finish(block: Block, hidden: list[Tensor], count: int) -> list[Tensor]:
    # What follows a block's linear layer, expert by expert.
    if isinstance(block.norm, nn.GroupNorm):
        pairs = zip(hidden, block.norm.weight.chunk(count), block.norm.bias.chunk(count), strict=True)
        hidden = [functional.layer_norm(x, w.shape, w, b, block.norm.eps) for x, w, b in pairs]
    return [block.dropout(block.activation(x)) for x in hidden]
