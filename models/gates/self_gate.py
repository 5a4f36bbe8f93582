"""The self gate: weighs experts of one owner, so that they learn whatever the owner's other gate prefers.

Source: Wang et al. 2024, "HoME: Hierarchy of Multi-Gate Experts for Multi-Task Learning at Kuaishou", section 3.3:
a sigmoid over a single expert, a softmax over several. It is part of architectures, and not chosen in a YAML file.

Shapes: B rows, E experts.
"""

from typing import Literal

import torch
from torch import Tensor

from models.gates.choice import Choice
from models.gates.gate import Gate, GateSettings


class SelfGateConfig(GateSettings):
    """Weigh every expert; the weights of a single one do not sum to 1."""

    name: Literal["self"] = "self"

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return SelfGate(self, experts, routing_width)


class SelfGate(Gate):
    """weights = sigmoid(logit) of one expert, softmax(logits) of several."""

    def __init__(self, config: SelfGateConfig, experts: int, routing_width: int) -> None:
        """Make the projection [E, D]."""
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=experts)

    def choose(self, routed: Tensor) -> Choice:
        """Select all experts."""
        weights_BE = routed.sigmoid() if self.experts == 1 else routed.softmax(-1)
        return Choice(weights_BE, torch.ones_like(weights_BE, dtype=torch.bool), {}, logits_BX=routed)
