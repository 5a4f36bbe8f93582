"""DSelect-k: k selectors, each a differentiable binary code of the expert it picks.

Source: Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of Experts with Applications to
Multi-Task Learning", equations 1 to 6 and section 3.2; Google's layers (google-research/dselect_k_moe) are reproduced
with the reduction `sum` and a `reach_epsilon` of 0.

Shapes: B rows (1 if static), E experts, K selectors, M bits of a code, L = K * M + K logits: first the bits
(selector-major, most significant first), then the selectors' weights.
"""

import logging
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.gates.annealing import Schedule, value_at
from models.gates.choice import Choice, check_at_most
from models.gates.gate import Gate, GateSettings

_LOG_EPSILON = 1e-6
"""Inside the logarithm of the entropy, as in Google's layer."""
_WEIGHT_RANGE = 0.05
_CODE_SHARE = 0.01
"""Codes start within this share of gamma around 0, where the smooth-step is steepest."""

logger = logging.getLogger(__name__)


class DSelectKConfig(GateSettings):
    """At most `k` experts for a row once the codes are saturated; dense before."""

    name: Literal["dselect_k"] = "dselect_k"
    k: int = Field(default=2, ge=1)
    """The most experts of a row once the codes are saturated; before that, the gate is dense."""
    gamma: float = Field(default=1.0, gt=0)
    """The width of the smooth-step: a small one saturates early."""
    entropy: float | Schedule = 0.1
    """The weight of the selectors' entropy, which drives them to one-hot: constant or a schedule."""
    reachability: float = Field(default=1.0, ge=0)
    """The weight of the term that keeps selectors on codes of real experts where their number is not a power of two."""
    reach_epsilon: float = Field(default=1e-3, ge=0)
    """A small number that keeps this term finite."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over rows: the weights of Google's layers refer to ``sum``, which depends on the batch size."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return DSelectKGate(self, experts, routing_width)


class DSelectKGate(Gate):
    """weights = sum over selectors of softmax(w)_j * r_j, where r_j spreads over the codes of the experts."""

    def __init__(self, config: DSelectKConfig, experts: int, routing_width: int) -> None:
        """Make the code and weight logits; raises ConfigError for more selectors than experts."""
        check_at_most("k", config.k, experts)
        self.bits = (experts - 1).bit_length()
        super().__init__(
            config, experts=experts, routing_width=routing_width, logit_width=config.k * self.bits + config.k
        )
        self.config = config
        self.selectors = config.k
        self.entropy = value_at(config.entropy, 0)
        self.reset_parameters()
        if self.unreachable:
            logger.warning(
                "dselect_k over %d experts: weights sum to less than 1 until the selectors leave the %d codes of no "
                "expert; take a power of two, or the comet gate",
                experts,
                2**self.bits - experts,
            )

    @property
    def unreachable(self) -> bool:
        """Whether some codes stand for no expert."""
        return self.experts != 1 << self.bits

    def reset_parameters(self) -> None:
        """Draw codes in the middle of the smooth-step and nearly equal selector weights, as the paper does."""
        split = self.selectors * self.bits
        bound = _CODE_SHARE * self.config.gamma
        with torch.no_grad():
            for rows in self.logit_rows():
                rows[:split].uniform_(-bound, bound)
                rows[split:].uniform_(-_WEIGHT_RANGE, _WEIGHT_RANGE)

    def choose(self, routed: Tensor) -> Choice:
        """Mix the selectors' codes; experts of weight 0 are not selected."""
        codes_BKE, weight_logits_BK = self.selector_codes(routed)
        weights_KB, codes_KEB = weight_logits_BK.softmax(-1).t(), codes_BKE.permute(1, 2, 0)
        # Selector by selector: a sum over an axis of two is ten times as dear in an exported graph.
        weights_EB = weights_KB[:1] * codes_KEB[0]
        for selector in range(1, self.selectors):
            weights_EB = weights_EB + weights_KB[selector : selector + 1] * codes_KEB[selector]
        weights_BE = weights_EB.t().contiguous()
        penalties = self._penalties(codes_BKE) if self.training else {}
        return Choice(weights_BE, weights_BE > 0, penalties, logits_BX=weight_logits_BK)

    def selector_codes(self, logits_BL: Tensor) -> tuple[Tensor, Tensor]:
        """What each selector puts on each expert, r [B, K, E], and the logits of the selectors' weights [B, K]."""
        split = self.selectors * self.bits
        # Rows last: to broadcast over an axis of one or two is ten times as dear in an exported graph.
        steps_CB = smooth_step(logits_BL[:, :split], self.config.gamma).t()
        ones_KMB = steps_CB.unflatten(0, (self.selectors, self.bits))
        codes_KEB = logits_BL.new_ones(()).expand(self.selectors, 1, logits_BL.shape[0])
        for bit in range(self.bits):
            one_K1B = ones_KMB[:, bit : bit + 1]
            codes_KEB = torch.stack([codes_KEB * (1 - one_K1B), codes_KEB * one_K1B], 2).flatten(1, 2)
        return codes_KEB[:, : self.experts].permute(2, 0, 1), logits_BL[:, split:]

    @torch.no_grad()
    def selector_distance(self, logits_BL: Tensor | None) -> Tensor:
        """1 minus the largest entry of each selector, [B, K]; exactly 0 for a selector that is one-hot."""
        codes_BKE, _ = self.selector_codes(self.routed(logits_BL))
        return 1 - codes_BKE.amax(-1)

    def converged(self, logits_BL: Tensor | None = None, tolerance: float = 0.0) -> bool:
        """Whether every selector (of a static gate: leave the logits out) is within `tolerance` of one-hot."""
        return float(self.selector_distance(logits_BL).max()) <= tolerance

    def on_step(self, global_step: int) -> None:
        """Follow the schedule of the entropy's weight."""
        self.entropy = value_at(self.config.entropy, global_step)

    def _penalties(self, codes_BKE: Tensor) -> dict[str, Tensor]:
        entropy_B = -(codes_BKE * (codes_BKE + _LOG_EPSILON).log()).sum((-2, -1))
        terms = {"selector_entropy": self.entropy * self._reduce(entropy_B)}
        if self.unreachable:
            reach_B = (1 / (codes_BKE.sum(-1) + self.config.reach_epsilon)).sum(-1)
            terms["reachability"] = self.config.reachability * self._reduce(reach_B)
        return terms

    def _reduce(self, rows_B: Tensor) -> Tensor:
        return rows_B.mean() if self.config.reduction == "mean" else rows_B.sum()


def smooth_step(x: Tensor, gamma: float) -> Tensor:
    """Cubic from 0 at -gamma/2 to 1 at gamma/2, exactly 0 and 1 beyond (DSelect-k, equation 4), elementwise.

    A saturated value has a zero derivative: it never moves again.
    """
    half = gamma / 2
    # Held inside first, so that the cube of a far value cannot overflow into the gradient. Written as the published
    # layers write it: an entropy's gradient near the ends magnifies the rounding, and must agree with theirs.
    clamped = x.clamp(-half, half)
    cubic = (-2 / gamma**3) * (clamped * clamped * clamped) + (1.5 / gamma) * clamped + 0.5
    # Rounding can carry the cubic just past its ends: bring the value back, and leave the derivative.
    cubic = cubic + (cubic.clamp(0.0, 1.0) - cubic).detach()
    return torch.where(x <= -half, 0.0, torch.where(x >= half, 1.0, cubic))
