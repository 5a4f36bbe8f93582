"""Dense-to-sparse gate: a noisy softmax that is annealed, then switched to top-k for good.

Source: Nie et al. 2021, "EvoMoE: An Evolutional Mixture-of-Experts Training Framework via Dense-To-Sparse Gate",
section 4.2, equations 5 to 7.

Shapes: B rows, E experts.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.gates.annealing import Temperature, value_at
from models.gates.choice import Choice, check_at_most, members
from models.gates.gate import Gate, GateSettings
from models.gates.gumbel import gumbel_noise


class DenseToSparseConfig(GateSettings):
    """Dense until training step `switch_step`, exactly `k` experts for a row from then on."""

    name: Literal["dense_to_sparse"] = "dense_to_sparse"
    switch_step: int = Field(ge=1)
    """The training step from which on the gate is sparse. It has no default: whoever forgot it would train a top-k gate
    from the first step."""
    k: int = Field(default=1, ge=1)
    """The experts of a row after the switch."""
    temperature: Temperature = 1.0
    """The temperature of the softmax, constant or a schedule; its value at the switch is kept."""
    threshold: float = Field(default=0.0, ge=0, lt=1)
    """Before the switch, weights below it are dropped; the largest stays."""
    normalise: bool = False
    """Divide the remaining weights by their sum. The paper does not; with k = 1 the router would then learn nothing
    after the switch."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return DenseToSparseGate(self, experts, routing_width)


class DenseToSparseGate(Gate):
    """weights = softmax((logits + Gumbel noise) / temperature); later without noise, and the k largest of them."""

    def __init__(self, config: DenseToSparseConfig, experts: int, routing_width: int) -> None:
        """Make the projection [E, D]; raises ConfigError for k above the number of experts."""
        check_at_most("k", config.k, experts)
        super().__init__(config, experts=experts, routing_width=routing_width, logit_width=experts)
        self.config = config
        self.selectors = config.k
        self.sparse = False
        self.temperature = value_at(config.temperature, 0)

    def most_chosen(self) -> int:
        """Bound on the selection: all experts before the switch, k after it."""
        return self.config.k if self.sparse else self.experts

    def choose(self, routed: Tensor) -> Choice:
        """Anneal or select; noise in training and before the switch only."""
        noise_BE = gumbel_noise(routed) if self.training and not self.sparse else torch.zeros_like(routed)
        dense_BE = ((routed + noise_BE) / self.temperature).softmax(-1)
        if self.sparse:
            selected_BE = members(routed.topk(self.config.k, -1).indices, None, self.experts)
        else:
            best_BE = members(dense_BE.argmax(-1, keepdim=True), None, self.experts)
            selected_BE = (dense_BE >= self.config.threshold) | best_BE
        weights_BE = dense_BE.masked_fill(~selected_BE, 0.0)
        if self.config.normalise:
            weights_BE = weights_BE / weights_BE.sum(-1, keepdim=True)
        return Choice(weights_BE, selected_BE, {}, logits_BX=routed, load_BX=selected_BE.to(routed.dtype))

    def on_step(self, global_step: int) -> None:
        """Follow the temperature's schedule up to the switch."""
        self.sparse = global_step >= self.config.switch_step
        self.temperature = value_at(self.config.temperature, min(global_step, self.config.switch_step))
