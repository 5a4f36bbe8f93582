"""The dense gate: a softmax over all experts.

Source: Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
equation 7.

Shapes: B rows, L routing logits, E experts.
"""

from typing import Literal

import torch
from torch import Tensor

from models.gates.choice import Choice, softmax_of_rows
from models.gates.gate import Gate, GateSettings


class SoftmaxConfig(GateSettings):
    """Weigh every expert; nothing is sparse."""

    name: Literal["softmax"] = "softmax"

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return SoftmaxGate(self, experts, routing_width)


class SoftmaxGate(Gate):
    """weights = softmax(logits); logits are the experts'."""

    def __init__(self, config: SoftmaxConfig, experts: int, routing_width: int) -> None:
        """Make the projection [E, D]."""
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=experts)

    def choose(self, routed: Tensor) -> Choice:
        """Select all experts."""
        weights_BE = softmax_of_rows(routed)
        return Choice(weights_BE, torch.ones_like(weights_BE, dtype=torch.bool), {}, logits_BX=routed)
