"""The gate of always-on experts: every row takes all of them, each with weight 1.

Source: Dai et al. 2024, "DeepSeekMoE: Towards Ultimate Expert Specialization in Mixture-of-Experts Language Models",
section 3.2, equation 9: shared experts are added to the routed ones, and no router weighs them. It is part of
architectures, and not chosen in a YAML file.

Shapes: E experts.
"""

from typing import Literal

import torch
from torch import Tensor

from models.gates.choice import Choice
from models.gates.gate import Gate, GateSettings


class AlwaysConfig(GateSettings):
    """No options."""

    name: Literal["always"] = "always"

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        del routing_width
        return AlwaysGate(self, experts)


class AlwaysGate(Gate):
    """weights = 1, for all rows alike: a static gate without parameters."""

    ones_1E: Tensor

    def __init__(self, config: AlwaysConfig, experts: int) -> None:
        """Drop the constant logits of a static gate, which could never be trained."""
        super().__init__(config, experts=experts, routing_width=0, logit_width=experts)
        self.constant_1L = None
        self.register_buffer("ones_1E", torch.ones(1, experts), persistent=False)

    def routed(self, logits_BL: Tensor | None, ids_B: Tensor | None = None) -> Tensor:
        """Neither logits nor ids."""
        del logits_BL, ids_B
        return self.ones_1E

    def choose(self, routed: Tensor) -> Choice:
        """Select all experts."""
        return Choice(routed, torch.ones_like(routed, dtype=torch.bool), {})
