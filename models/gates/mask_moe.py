"""Top-k routing under a mask: rare ids reach few experts, so that each of them is trained by enough rows.

Source: Su et al. 2024, "MaskMoE: Boosting Token-Level Learning via Routing Mask in Mixture-of-Experts", section 3.2: an
id that occurs rarely sees a fixed draw of `visible` experts (one, in the paper), a frequent one sees all, and the top-k
runs over what is seen. Departure: the draw is by the stable hash of `hash` gates, and "rare" is a number of training
rows where the paper takes a share of the corpus.

Shapes: B rows, E experts, R ids of the feature.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from models.gates.choice import check_at_most
from models.gates.gate import Gate, Routing
from models.gates.hash import HashConfig, HashGate
from models.gates.top_k import TopKGate, TopKGateSettings

_UNSEEN = -1e9
"""The logit of an expert that a row does not see: finite, so that gradients are, and below any other."""


class MaskMoEConfig(TopKGateSettings):
    """`top_k` among the experts that the id of a row sees; a gate's `routing` is then that of all features."""

    name: Literal["mask_moe"] = "mask_moe"
    feature: str
    """The id feature that says how rare a row is, such as the item's id."""
    rare: int = Field(default=100, ge=1)
    """Ids in fewer training rows than this are rare."""
    visible: int = Field(default=1, ge=1)
    """How many experts a rare id sees."""
    rows: int = Field(default=0, ge=0)
    """How many ids the feature has; 0: as the features say."""
    seed: int = 0
    """Picks the draw."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.permutation is not None:
            message = "mask_moe says which experts an id sees, so they cannot change places: leave permutation out"
            raise ValueError(message)
        return self

    def over(self, rows: int) -> "MaskMoEConfig":
        """The same gate with the number of ids of its feature, unless `rows` says another."""
        return self if self.rows else self.model_copy(update={"rows": rows})

    def build(self, experts: int, routing_width: int) -> Gate:
        """Build the gate; see `models.gates.build_gate`."""
        return MaskMoEGate(self, experts, routing_width)


class MaskMoEGate(TopKGate):
    """weights = softmax over the k largest logits among the experts that the row's id sees."""

    visible_RE: Tensor

    def __init__(self, config: MaskMoEConfig, experts: int, routing_width: int) -> None:
        """Make the projection; all ids see all experts until `fit` is told how rare they are."""
        check_at_most("visible", config.visible, experts)
        super().__init__(config, experts, routing_width)
        self.config = config
        self.masks_by_ids = True
        self.register_buffer("visible_RE", torch.ones(max(config.rows, 1), experts, dtype=torch.bool))

    def route(self, logits_BL: Tensor | None, ids_B: Tensor | None = None) -> Routing:
        """Hide what the ids do not see, then route; raises TypeError without ids or logits."""
        routed = self.routed(logits_BL)
        if ids_B is None:
            message = "MaskMoEGate needs ids, and got none"
            raise TypeError(message)
        known_B = (ids_B >= 0) & (ids_B < self.visible_RE.shape[0])
        visible_BE = self.visible_RE[torch.where(known_B, ids_B, 0)]
        # Null experts, which stand behind the others, are seen by all.
        hidden_BX = functional.pad(~visible_BE, (0, self.logit_width - self.experts))
        routing = super().route(routed.masked_fill(hidden_BX, _UNSEEN))
        # A top-k wider than what is seen takes experts of weight 0, which need not run.
        return routing._replace(
            weights_BE=routing.weights_BE * visible_BE, selected_BE=routing.selected_BE & visible_BE
        )

    def fit(self, counts_R: Tensor) -> None:
        """Let ids in fewer than `rare` training rows see `visible` experts; `counts_R` is how often each occurs."""
        draw = HashGate(HashConfig(feature=self.config.feature, seed=self.config.seed), self.experts)
        first_R = draw.expert_of(torch.arange(len(self.visible_RE)))
        # Neighbours of the drawn one, in a circle: any number of experts, all of them equally often.
        distance_RE = (torch.arange(self.experts) - first_R.unsqueeze(1)) % self.experts
        rare_R1 = (counts_R.cpu() < self.config.rare).unsqueeze(1)
        self.visible_RE.copy_(~rare_R1 | (distance_RE < self.config.visible))
