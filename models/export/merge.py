"""Experts that answer real rows alike become one before the export, to which gates give the sum of their weights.

Source of the idea: Li et al. 2024, "Merge, Then Compress" (ICLR), where each group of experts becomes one around the
expert that is used most. There groups are those whom routers select alike, and their weights are averaged after their
neurons were matched; here groups are those that answer alike, and the most used expert answers for its group as it is,
so that how far answers move is known beforehand.

Shape legend: B rows, E experts of a level, O outputs of one expert.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from contract.inputs import Inputs
from models.experts.level import Level
from models.experts.merge_experts import merge_experts
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

Groups = dict[int, int]
"""By expert that goes, the one that answers for it."""


@dataclass(frozen=True)
class Merged:
    """By level, which expert answers for which; of how many, the weights that went, and the distance allowed."""

    groups: tuple[Groups, ...]
    experts: int
    weights: int
    distance: float

    @property
    def count(self) -> int:
        """How many experts went."""
        return sum(map(len, self.groups))

    def __str__(self) -> str:
        """One line."""
        if not self.count:
            return f"merged none of {self.experts} experts: no two answer within {self.distance:.2%} of each other"
        gone = f"merged {self.count} of {self.experts} experts with {self.weights:,} weights into others"
        return f"{gone} that answer within {self.distance:.2%} of them"


@torch.no_grad()
def expert_distances(ranker: Ranker, batches: Iterable[Inputs]) -> list[Tensor]:
    """By level how far apart every two experts answer [E, E]: the root of |a - b|^2 / mean(|a|^2, |b|^2) over rows.

    Experts of different banks read different inputs and are infinitely far apart.
    """
    ranker.eval()
    levels = ranker.network.typed_levels
    products = [[_Products() for _ in level.typed_banks] for level in levels]
    hooks = [
        bank.experts.register_forward_hook(distances.add)
        for level, banks in zip(levels, products, strict=True)
        for bank, distances in zip(level.typed_banks, banks, strict=True)
    ]
    for inputs in batches:
        ranker(TensorInputs.from_numpy(inputs))
    for hook in hooks:
        hook.remove()
    return [_joined(level, banks) for level, banks in zip(levels, products, strict=True)]


def merge(ranker: Ranker, distances: list[Tensor], use: list[list[Tensor]], distance: float) -> Merged:
    """Merge experts, in place, that answer within `distance` of one that is used more; `use` as of `expert_use`."""
    levels, groups, weights = ranker.network.typed_levels, [], 0
    experts = ranker.network.plan.experts
    for level, apart_EE, gates in zip(levels, distances, use, strict=True):
        merged_groups = _groups(level, apart_EE, torch.stack(gates).sum(dim=0), distance)
        groups.append(merged_groups)
        if merged_groups:
            before = _weights(level)
            merge_experts(level, merged_groups)
            weights += before - _weights(level)
    ranker.network.plan = replace(ranker.network.plan, levels=tuple(level.plan for level in levels))
    return Merged(tuple(groups), experts, weights, distance)


class _Products:
    """The sum over rows of the products of every two experts' answers, [E, E]."""

    def __init__(self) -> None:
        self.sum_EE: Tensor | None = None

    def add(self, _: object, __: object, answers_BEO: Tensor) -> None:
        """A forward hook."""
        answers = answers_BEO.double().transpose(0, 1).flatten(1)
        product_EE = answers @ answers.t()
        self.sum_EE = product_EE if self.sum_EE is None else self.sum_EE + product_EE


def _joined(level: Level, banks: list[_Products]) -> Tensor:
    apart_EE = torch.full((level.plan.experts, level.plan.experts), torch.inf, dtype=torch.float64)
    for bank, products in zip(level.typed_banks, banks, strict=True):
        if products.sum_EE is None:
            continue
        size_E = products.sum_EE.diagonal()
        both_EE = size_E.unsqueeze(0) + size_E.unsqueeze(1)
        square_EE = (both_EE - 2 * products.sum_EE).clamp(min=0.0) / (both_EE / 2).clamp(min=1e-30)
        own = slice(bank.first, bank.first + bank.experts.count)
        apart_EE[own, own] = square_EE.sqrt()
    return apart_EE


def _groups(level: Level, apart_EE: Tensor, used_E: Tensor, distance: float) -> Groups:
    """The nearest pairs first; an expert that answers for others, or that has gone, goes nowhere."""
    gates = list(enumerate(level.plan.gates))
    weighed = [{g for g, gate in gates if e in level.plan.experts_of(gate)} for e in range(len(used_E))]
    # The graph adds what every row takes without weights, so two of those cannot be one.
    always = {e for _, gate in gates if gate.kind == "always" for e in level.plan.experts_of(gate)}
    free = [e for e in range(len(used_E)) if e not in always]
    pairs = [pair for pair in combinations(free, 2) if weighed[pair[0]] == weighed[pair[1]]]
    groups: Groups = {}
    for pair in sorted(pairs, key=lambda pair: float(apart_EE[pair])):
        stays, goes = sorted(pair, key=lambda e: -float(used_E[e]))
        taken = {stays, goes} & groups.keys() or goes in groups.values()
        if float(apart_EE[pair]) <= distance and not taken:
            groups[goes] = stays
    return groups


def _weights(level: Level) -> int:
    return sum(parameter.numel() for parameter in level.banks.parameters())
