"""Top-any gate: every expert has a threshold of its own, so how many experts a row takes is learned and no knob.

Source: Guo et al. 2024, "Dynamic Mixture of Experts: An Auto-Tuning Approach for Efficient Transformer Models"
(DynMoE), section 3.1, equations 3 to 6: an expert is taken where sigmoid(score) passes sigmoid(threshold), the taken
ones weigh alike, gradients pass the step straight through, and a row that passes none takes its best one; section 3.3,
equation 8, for the diversity of the experts' directions. Departures: scores are linear and not cosines, with the
threshold as their bias, so that the graph can split the projection between request and candidate; experts are neither
added nor removed while training goes on, but the ones that no row takes can be left out at export (`export.prune`).

Shapes: B rows, E experts, D routing inputs.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from models.gates.choice import Choice, members
from models.gates.gate import Gate, GateSettings


class TopAnyConfig(GateSettings):
    """As many experts as pass their own learned thresholds (DynMoE)."""

    name: Literal["top_any"] = "top_any"
    diversity: float = Field(default=0.01, ge=0)
    """The weight of a term that keeps the experts' directions apart and short; without it they tend to agree."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return TopAnyGate(self, experts, routing_width)


class TopAnyGate(Gate):
    """weights = 1 / k for each of the k experts with a positive logit; where none has one, the best alone."""

    def __init__(self, config: TopAnyConfig, experts: int, routing_width: int) -> None:
        """Make the projection [E, D], whose bias is minus the thresholds."""
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=experts)
        self.diversity = config.diversity

    def choose(self, routed: Tensor) -> Choice:
        """Take what passes (equation 5), at least one."""
        best_BE = members(routed.argmax(-1, keepdim=True), None, self.experts)
        passed_BE = routed > 0
        selected_BE = passed_BE | (best_BE & ~passed_BE.any(-1, keepdim=True))
        weights_BE = selected_BE.to(routed.dtype)
        penalties = {}
        if self.training:
            # The step's gradient is that of the sigmoid, for the experts that were not taken, too.
            soft_BE = routed.sigmoid()
            weights_BE = weights_BE + (soft_BE - soft_BE.detach())
            if self.diversity and self.projection is not None:
                penalties["diversity"] = self.diversity * diversity_loss(self.projection.weight)
        weights_BE = weights_BE / selected_BE.sum(-1, keepdim=True)
        return Choice(weights_BE, selected_BE, penalties, logits_BX=routed, load_BX=selected_BE.to(routed.dtype))


def diversity_loss(weight_ED: Tensor) -> Tensor:
    """How far the experts' directions are from orthonormal, plus their mean length (equation 8); 0-dim.

    >>> float(diversity_loss(torch.eye(2)))
    1.0
    """
    unit_ED = functional.normalize(weight_ED, dim=1)
    apart_EE = unit_ED @ unit_ED.t() - torch.eye(len(weight_ED), device=weight_ED.device, dtype=weight_ED.dtype)
    return apart_EE.norm() + weight_ED.norm(dim=1).mean()
