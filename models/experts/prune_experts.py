"""Leaving experts out of a trained network: the others take over the weight that gates gave them.

Shape legend: B rows, E experts that stay, M experts of one gate as it was trained.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.architectures import LevelPlan
from models.experts.expert_mlp import Experts
from models.experts.level import Level, Widen
from models.layers.mlp import Block, GroupedLinear


class KeptWiden(Widen):
    """A gate's columns [B, M] as columns of the experts that stay [B, E].

    Weights keep their sum; a row all of whose experts are gone takes `instead`.
    """

    instead_E: Tensor

    def __init__(self, members: list[int], kept: list[int], instead: int) -> None:
        """Place the experts `members` among those that are `kept`, all numbered as they were."""
        super().__init__(members, max(kept) + 1)
        place = {expert: column for column, expert in enumerate(members)}
        index = [place.get(expert, len(members)) for expert in kept]
        self.register_buffer("index_E", torch.tensor(index), persistent=False)
        self.register_buffer("instead_E", torch.tensor([each == instead for each in kept]), persistent=False)

    def forward(self, values_BM: Tensor) -> Tensor:
        """Take weights or bools."""
        nothing_B1 = torch.zeros_like(values_BM[:, :1])
        kept_BE = torch.cat([values_BM, nothing_B1], dim=1).index_select(1, self.index_E)
        if values_BM.dtype == torch.bool:
            return kept_BE | (~kept_BE.any(dim=1, keepdim=True) & self.instead_E)
        whole_B1, part_B1 = (each.sum(dim=1, keepdim=True) for each in (values_BM, kept_BE))
        alive_B1 = part_B1 > 0
        scaled_BE = kept_BE * (whole_B1 / torch.where(alive_B1, part_B1, 1.0))
        return torch.where(alive_B1, scaled_BE, whole_B1 * self.instead_E)


def keep_experts(level: Level, kept: list[int], most_used: Sequence[int]) -> None:
    """Leave the experts of a level out that are not `kept`; `most_used` is each gate's own that rows take most, kept.

    The level changes in place, to one of fewer experts; its gates still weigh them all.
    """
    plan = level.plan
    widens = [
        KeptWiden(plan.experts_of(gate), kept, instead) for gate, instead in zip(plan.gates, most_used, strict=True)
    ]
    banks, first = [], 0
    for bank in level.typed_banks:
        own = [expert - bank.first for expert in kept if bank.first <= expert < bank.first + bank.experts.count]
        if own:
            bank.experts, bank.first = kept_experts(bank.experts, own), first
            banks.append(bank)
            first += len(own)
    level.banks, level.widen, level.plan = nn.ModuleList(banks), nn.ModuleList(widens), _kept_plan(plan, kept)


def kept_experts(experts: Experts, kept: list[int]) -> Experts:
    """Some experts of a bank, with their own shares of layers and norms."""
    fewer = copy.deepcopy(experts)
    fewer.count = len(kept)
    for block in fewer.typed_blocks:
        _keep_in_block(block, experts.count, kept)
    return fewer


def _kept_plan(plan: LevelPlan, kept: list[int]) -> LevelPlan:
    sets, first = [], 0
    for each in plan.sets:
        sets.append(replace(each, experts=sum(first <= expert < first + each.experts for expert in kept)))
        first += each.experts
    return replace(plan, sets=tuple(sets))


def _keep_in_block(block: Block, count: int, kept: list[int]) -> None:
    linear = block.linear
    if isinstance(linear, GroupedLinear):
        linear.weight_EHD = nn.Parameter(linear.weight_EHD.detach()[kept])
        linear.bias_EH = nn.Parameter(linear.bias_EH.detach()[kept])
    else:
        linear.weight, linear.bias = (nn.Parameter(_own(each, count, kept)) for each in (linear.weight, linear.bias))
        linear.out_features = len(linear.bias)
    norm = block.norm
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.ndim:
            shorter = _own(tensor, count, kept)
            setattr(norm, name, nn.Parameter(shorter) if isinstance(tensor, nn.Parameter) else shorter)
    if isinstance(norm, nn.BatchNorm1d):
        norm.num_features = norm.num_features // count * len(kept)
    if isinstance(norm, nn.GroupNorm):
        norm.num_channels, norm.num_groups = norm.num_channels // count * len(kept), len(kept)


def _own(tensor: Tensor, count: int, kept: list[int]) -> Tensor:
    """The rows of some of `count` experts, which lie one below the other."""
    return tensor.detach().unflatten(0, (count, -1))[kept].flatten(0, 1)
