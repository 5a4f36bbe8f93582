"""COMET: k binary trees of smooth splits whose leaves are the experts; any number of experts works.

Source: Ibrahim et al. 2023, "COMET: Learning Cardinality Constrained Mixture of Experts with Trees and Local Search",
section 3, equations 3 to 6. Trees are complete, in heap order: node 0 is the root, node q has the children 2q+1 (left)
and 2q+2 (right), nodes 0..E-2 split and the rest are leaves. Experts are the leaves from left to right.

Shapes: B rows (1 if static), E experts, K trees, Q splits (E - 1), N nodes of a level, L = Q * K + E * K logits: first
the splits in heap order, then the leaves in expert order, the tree varying fastest.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.gates.annealing import Schedule, value_at
from models.gates.choice import Choice, check_at_most
from models.gates.dselect_k import smooth_step
from models.gates.gate import Gate, GateSettings

_LOG_EPSILON = 1e-6
"""Inside the logarithm of the entropy, as in the reference layer."""
_LEAF_EPSILON = 1e-8
"""Added to a reached leaf's probability before its logarithm, as in the reference layer."""
_UNREACHED = torch.finfo(torch.float32).min
_SPLIT_SHARE = 0.01
_LEAF_RANGE = 0.05


class CometConfig(GateSettings):
    """At most `k` experts for a row once the splits are saturated; dense before."""

    name: Literal["comet"] = "comet"
    k: int = Field(default=2, ge=1)
    """The most experts of a row once the splits are saturated; before that, the gate is dense."""
    gamma: float = Field(default=1.0, gt=0)
    """The width of the smooth-step: a small one saturates early."""
    entropy: float | Schedule = 0.1
    """The weight of the trees' leaf entropy (summed over trees and leaves, averaged over rows), which drives each tree
    to one leaf: constant or a schedule."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return CometGate(self, experts, routing_width)


class CometGate(Gate):
    """One softmax over all trees' reached leaves, logit = leaf logit + log probability; then summed over trees."""

    def __init__(self, config: CometConfig, experts: int, routing_width: int) -> None:
        """Make the split and leaf logits; raises ConfigError for more trees than experts."""
        check_at_most("k", config.k, experts)
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=(2 * experts - 1) * config.k)
        self.config = config
        self.selectors = config.k
        self.entropy = value_at(config.entropy, 0)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw splits in the middle of the smooth-step and nearly equal leaves."""
        split = (self.experts - 1) * self.selectors
        bound = _SPLIT_SHARE * self.config.gamma
        with torch.no_grad():
            for rows in self.logit_rows():
                rows[:split].uniform_(-bound, bound)
                rows[split:].uniform_(-_LEAF_RANGE, _LEAF_RANGE)

    def choose(self, routed: Tensor) -> Choice:
        """Weigh the leaves of all trees jointly; experts that no tree reaches have weight exactly 0."""
        reach_BEK, leaf_BEK = self.leaf_reach(routed)
        logits_BEK = torch.where(reach_BEK > 0, leaf_BEK + (reach_BEK + _LEAF_EPSILON).log(), _UNREACHED)
        weights_BE = logits_BEK.flatten(1).softmax(-1).unflatten(-1, (self.experts, self.selectors)).sum(-1)
        penalties = self._penalties(reach_BEK) if self.training else {}
        return Choice(weights_BE, weights_BE > 0, penalties, logits_BX=leaf_BEK.flatten(1))

    def leaf_reach(self, logits_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Probability that each tree reaches each expert's leaf, and the leaves' logits, both [B, E, K]."""
        splits = self.experts - 1
        split_BQK = logits_BL[:, : splits * self.selectors].unflatten(-1, (splits, self.selectors))
        left_BQK = smooth_step(split_BQK, self.config.gamma)
        leaf_BEK = logits_BL[:, splits * self.selectors :].unflatten(-1, (self.experts, self.selectors))
        return tree_leaves(left_BQK), leaf_BEK

    @torch.no_grad()
    def selector_distance(self, logits_BL: Tensor | None) -> Tensor:
        """1 minus the most probable leaf of each tree, [B, K]; exactly 0 for a tree that is one-hot."""
        reach_BEK, _ = self.leaf_reach(self.routed(logits_BL))
        return 1 - reach_BEK.amax(1)

    def on_step(self, global_step: int) -> None:
        """Follow the schedule of the entropy's weight."""
        self.entropy = value_at(self.config.entropy, global_step)

    def _penalties(self, reach_BEK: Tensor) -> dict[str, Tensor]:
        entropy_B = -(reach_BEK * (reach_BEK + _LOG_EPSILON).log()).sum((-2, -1))
        return {"leaf_entropy": self.entropy * entropy_B.mean()}


def tree_leaves(left_BQK: Tensor) -> Tensor:
    """Probabilities of the Q + 1 leaves, left to right, [B, Q + 1, K], from the left probabilities of heap nodes."""
    splits = left_BQK.shape[1]
    level_BNK = torch.ones_like(left_BQK[:, :1]) if splits else left_BQK.new_ones(left_BQK.shape[0], 1, 1)
    leaves = []
    first = 0
    while first < splits:
        nodes = level_BNK.shape[1]
        splitting = min(nodes, splits - first)
        leaves.append(level_BNK[:, splitting:])
        left_BNK = left_BQK[:, first : first + splitting]
        parent_BNK = level_BNK[:, :splitting]
        level_BNK = torch.stack([parent_BNK * left_BNK, parent_BNK * (1 - left_BNK)], 2).flatten(1, 2)
        first += nodes
    # The last level stands left of the leaves that end one level above it.
    return torch.cat([level_BNK, *reversed(leaves)], 1)
