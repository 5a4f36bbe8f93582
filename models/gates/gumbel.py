"""GG MoE: a softmax with Gumbel noise on its logits.

Source: Chernov 2025, "(GG) MoE vs. MLP on Tabular Data", section 3; the distribution is Jang et al. 2017, "Categorical
Reparameterization with Gumbel-Softmax", equation 2.

Shapes: B rows, E experts, S noise samples.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.gates.annealing import Temperature, value_at
from models.gates.choice import Choice
from models.gates.gate import Gate, GateSettings
from models.row_share import draw_rows


class GumbelConfig(GateSettings):
    """Weigh every expert, with noise in training as a regulariser."""

    name: Literal["gumbel"] = "gumbel"
    temperature: Temperature = 1.0
    """The temperature of the softmax, constant or a schedule."""
    samples: int = Field(default=10, ge=0)
    """How many draws of the noise evaluation averages over (the paper finds about 10 enough); 0: evaluation without
    noise. They are drawn once and stored with the model, so that a row's answer is always the same."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return GumbelGate(self, experts, routing_width)


class GumbelGate(Gate):
    """weights = softmax((logits + Gumbel noise) / temperature)."""

    noise_SE: Tensor

    def __init__(self, config: GumbelConfig, experts: int, routing_width: int) -> None:
        """Make the projection [E, D] and the noise of evaluation [S, E]."""
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=experts)
        self.config = config
        self.temperature = value_at(config.temperature, 0)
        self.register_buffer("noise_SE", gumbel_noise(torch.empty(config.samples, experts)))

    def choose(self, routed: Tensor) -> Choice:
        """Select all experts; a fresh draw in training, the mean over the kept draws in evaluation."""
        if self.training:
            weights_BE = ((routed + gumbel_noise(routed)) / self.temperature).softmax(-1)
        elif self.config.samples:
            noisy_BSE = routed.unsqueeze(1) + self.noise_SE.to(routed.dtype)
            weights_BE = (noisy_BSE / self.temperature).softmax(-1).mean(1)
        else:
            weights_BE = (routed / self.temperature).softmax(-1)
        return Choice(weights_BE, torch.ones_like(weights_BE, dtype=torch.bool), {}, logits_BX=routed)

    def on_step(self, global_step: int) -> None:
        """Follow the schedule of the temperature."""
        self.temperature = value_at(self.config.temperature, global_step)


def gumbel_noise(like: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape, type and device of a tensor."""
    # The logarithm of an exponential variable never meets log(0), which -log(-log(uniform)) can.
    return -draw_rows(lambda shape: like.new_empty(shape).exponential_(), like.shape).log()
