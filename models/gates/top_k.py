"""Top-k gates: a softmax over the k experts of largest logits, with or without noise in training.

Source: Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer",
equations 3 to 5 and appendix A. Null experts: Zeng et al. 2024, "AdaMoE: Token-Adaptive Routing with Null Experts for
Mixture-of-Experts Language Models", section 3.

Shapes: B rows, D routing inputs, E experts, K selections, X experts and null experts (L = X, or 2 X with noise).
"""

from abc import ABC
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.gates.choice import Choice, check_at_most, masked_softmax, members
from models.gates.gate import Gate, GateSettings
from models.gates.regularisers import global_mean
from models.row_share import draw_rows

_NOISE_FLOOR = 1e-2
"""Added to the noise's scale, as the authors' own code does: the smooth load divides by it."""


class TopKGateSettings(GateSettings, ABC):
    """How many experts the top-k gates take."""

    k: int = Field(default=2, ge=1)
    """The experts of a row."""
    null_experts: int = Field(default=0, ge=0)
    """Experts that compute nothing and take part in the choice, so that easy rows use fewer than `k`. Turn on
    `regularisers.load_balance` with them, or the router may ignore them."""


class TopKConfig(TopKGateSettings):
    """Exactly `k` experts for a row."""

    name: Literal["top_k"] = "top_k"

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return TopKGate(self, experts, routing_width)


class NoisyTopKConfig(TopKGateSettings):
    """As `top_k`, with learned noise on the logits in training only."""

    name: Literal["noisy_top_k"] = "noisy_top_k"
    load: float = Field(default=0.0, ge=0)
    """The weight of the squared coefficient of variation of the experts' smooth load (appendix A, equations 8-11)."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return NoisyTopKGate(self, experts, routing_width)


class TopKGate(Gate):
    """weights = softmax(logits) over the k largest, exactly 0 elsewhere."""

    def __init__(self, config: TopKGateSettings, experts: int, routing_width: int) -> None:
        """Make the projection [X, D]; raises ConfigError for k above the number of experts."""
        check_at_most("k", config.k, experts)
        super().__init__(
            config, experts=experts, routing_width=routing_width, logit_width=experts + config.null_experts
        )
        self.selectors = config.k

    def most_chosen(self) -> int:
        """Bound on the selection: k."""
        return self.selectors

    def choose(self, routed: Tensor) -> Choice:
        """Select by index, never by value: equal logits and zero weights must not change how many."""
        return self.select(routed)

    def select(self, logits_BX: Tensor) -> Choice:
        """Choose among experts and null experts and weigh the real ones."""
        chosen_BX = members(logits_BX.topk(self.selectors, -1).indices, None, self.logit_width)
        selected_BE = with_best(chosen_BX, logits_BX, self.experts)
        weights_BE = masked_softmax(logits_BX[:, : self.experts], selected_BE)
        load_BX = average_nulls(chosen_BX.to(logits_BX.dtype), self.experts)
        return Choice(weights_BE, selected_BE, {}, logits_BX=logits_BX, load_BX=load_BX)


class NoisyTopKGate(TopKGate):
    """In training, logits + standard normal noise * softplus(noise logits) are what the k largest are taken of."""

    def __init__(self, config: NoisyTopKConfig, experts: int, routing_width: int) -> None:
        """Make the two projections [X, D] and set them to 0, as appendix A does, so that the noise balances first."""
        super().__init__(config, experts, routing_width)
        self.load = config.load
        self.noise: nn.Linear | None = None
        self.noise_1X: nn.Parameter | None = None
        if self.projection is None:
            self.noise_1X = nn.Parameter(torch.zeros(1, self.logit_width))
        else:
            self.noise = nn.Linear(routing_width, self.logit_width)
            for parameter in (*self.projection.parameters(), *self.noise.parameters()):
                nn.init.zeros_(parameter)

    def project(self, normed_BD: Tensor, projection: nn.Linear) -> Tensor:
        """Clean logits [B, X]; in training followed by the noise logits, [B, 2 X]."""
        clean_BX = super().project(normed_BD, projection)
        if self.noise is None or not self.training:
            return clean_BX
        return torch.cat([clean_BX, self.noise(normed_BD)], -1)

    def choose(self, routed: Tensor) -> Choice:
        """Add the noise in training and select as `top_k` does."""
        if not self.training:
            return super().choose(routed)
        # In training the logits carry the noise's; a static gate keeps them apart.
        clean_BX, noise_BX = routed.chunk(2, -1) if self.noise_1X is None else (routed, self.noise_1X)
        scale_BX = F.softplus(noise_BX) + _NOISE_FLOOR
        noise_BX = draw_rows(partial(torch.randn, dtype=clean_BX.dtype, device=clean_BX.device), clean_BX.shape)
        noisy_BX = clean_BX + noise_BX * scale_BX
        choice = self.select(noisy_BX)
        if self.load == 0 or self.selectors == self.logit_width:
            return choice
        load = self.load * smooth_load(clean_BX, noisy_BX, scale_BX, self.selectors)
        return choice._replace(penalties={"load": load})


def smooth_load(clean_BX: Tensor, noisy_BX: Tensor, scale_BX: Tensor, k: int) -> Tensor:
    """Squared coefficient of variation of the experts' expected number of rows (appendix A, eq. 8-11); 0-dim.

    A row counts towards an expert with the probability that a new draw of that expert's noise keeps it among the k.
    """
    largest_BK = noisy_BX.topk(k + 1, -1).values
    inside_BX = noisy_BX >= largest_BK[:, k - 1 : k]
    threshold_BX = torch.where(inside_BX, largest_BK[:, k : k + 1], largest_BK[:, k - 1 : k])
    expected_X = global_mean(torch.special.ndtr((clean_BX - threshold_BX) / scale_BX))
    return expected_X.var(correction=0) / expected_X.mean().square()


def with_best(chosen_BX: Tensor, logits_BX: Tensor, experts: int) -> Tensor:
    """The chosen real experts, [B, E], with a row's best one where it chose null experts only.

    AdaMoE lets such a row use nothing, and its residual stream carries the row on; a task tower has none.
    """
    chosen_BE = chosen_BX[:, :experts]
    if chosen_BX.shape[1] == experts:
        return chosen_BE
    best_BE = members(logits_BX[:, :experts].argmax(-1, keepdim=True), None, experts)
    return chosen_BE | (best_BE & ~chosen_BE.any(-1, keepdim=True))


def average_nulls(chosen_BX: Tensor, experts: int) -> Tensor:
    """Spread the use of null experts evenly over them: they are the same, so balance among them is not an aim."""
    nulls_BN = chosen_BX[:, experts:]
    if nulls_BN.shape[1] == 0:
        return chosen_BX
    return torch.cat([chosen_BX[:, :experts], nulls_BN.mean(-1, keepdim=True).expand_as(nulls_BN)], -1)
