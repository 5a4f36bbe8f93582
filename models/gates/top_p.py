"""Top-p gate: as many experts as together reach a probability p, at most k.

Source: Huang et al. 2024, "Harder Tasks Need More Experts: Dynamic Routing in MoE Models", section 3.1, equations 3 to
5. Departures: the paper weighs the chosen experts by their share of the full softmax, here they are normalised to sum
to 1; at most `k` are taken, where the paper has no bound; and its entropy term is off by default
(`regularisers.entropy`). Null experts: Zeng et al. 2024, "AdaMoE", section 3.

Shapes: B rows, E experts, K selections, X experts and null experts.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from models.gates.choice import Choice, check_at_most, masked_softmax, members
from models.gates.gate import Gate, GateSettings
from models.gates.top_k import average_nulls, with_best


class TopPConfig(GateSettings):
    """A row for which the router is sure uses one expert, others more, until their probabilities reach `p`.

    The paper adds an entropy term to keep rows from spreading: `regularisers.entropy`.
    """

    name: Literal["top_p"] = "top_p"
    p: float = Field(default=0.5, gt=0, le=1)
    """The probability that the selected experts must reach together."""
    k: int | None = Field(default=None, ge=1)
    """The most experts of a row; null: no limit."""
    null_experts: int = Field(default=0, ge=0)
    """Experts that compute nothing and share the probability with the others."""

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return TopPGate(self, experts, routing_width)


class TopPGate(Gate):
    """weights = softmax(logits) over the smallest set of largest logits whose full softmax sums to p at least."""

    def __init__(self, config: TopPConfig, experts: int, routing_width: int) -> None:
        """Make the projection [X, D]; raises ConfigError for k above the number of experts."""
        check_at_most("k", config.k or 1, experts)
        super().__init__(
            config, experts=experts, routing_width=routing_width, logit_width=experts + config.null_experts
        )
        self.config = config
        self.selectors = config.k or experts

    def most_chosen(self) -> int:
        """Bound on the selection: k."""
        return self.selectors

    def choose(self, routed: Tensor) -> Choice:
        """Walk down the sorted probabilities until p is reached."""
        largest = routed.softmax(-1).topk(self.config.k or self.logit_width, -1)
        before_BK = largest.values.cumsum(-1) - largest.values
        # The first has nothing before it and is always taken, also where rounding puts the sum beside p.
        chosen_BX = members(largest.indices, before_BK < self.config.p, self.logit_width)
        selected_BE = with_best(chosen_BX, routed, self.experts)
        weights_BE = masked_softmax(routed[:, : self.experts], selected_BE)
        load_BX = average_nulls(chosen_BX.to(routed.dtype), self.experts)
        return Choice(weights_BE, selected_BE, {}, logits_BX=routed, load_BX=load_BX)
