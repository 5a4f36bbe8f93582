"""The interface of all gates: routing input -> weights of the experts, the selected set, regularisation terms.

Two steps, so that an exporter can split the first between the request's and the candidates' inputs: `logits`, linear
in the routing input, and `route`, all the rest.

Shapes: B rows, D routing inputs, L routing logits, E experts, K selectors.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from contract.errors import ConfigError
from contract.settings import Settings
from models.gates.choice import Choice, drop_experts
from models.gates.permutation import Permutation, PermutationConfig
from models.gates.regularisers import Regularisers

_CONSTANT_SCALE = 0.01
"""Of a static gate's first logits: enough to break the ties of a top-k, and different in each task's gate."""


class GateSettings(Settings, ABC):
    """The options of every gate."""

    regularisers: Regularisers = Regularisers()
    """Terms that the gate adds to the loss."""
    permutation: PermutationConfig | None = None
    """Learn which expert stands at which place of the gate (COMET's local search); None: experts stay in order."""
    expert_dropout: float = Field(default=0.0, ge=0, lt=1)
    """In training, leave out each selected expert of a row with this probability and share its weight among the others.

    It keeps a gate from settling on few experts (Zhao et al. 2019, "Recommending What Video to Watch Next: A Multitask
    Ranking System", section 5.3, with 0.1).
    """

    @abstractmethod
    def build(self, experts: int, routing_width: int) -> "Gate":
        """Build the gate; see `models.gates.build_gate`."""


class Routing(NamedTuple):
    """A gate's answer."""

    weights_BE: Tensor
    """[rows, experts]; a static gate answers [1, experts]."""
    selected_BE: Tensor
    """Bool, same shape: the set used for sparse execution; weights are exactly 0 elsewhere."""
    penalties: dict[str, Tensor]
    """Named 0-dim regularisation terms, already weighted; empty outside training."""


class Gate(nn.Module, ABC):
    """A rule that weighs experts.

    `experts`: how many there are. `static`: one weighting for all rows (built with a routing width of 0).
    `max_selected`: how many experts a row can select at most, guaranteed. `selectors`: how many it is meant to select
    once it has converged. `needs_ids`: routes by ids and not by the routing input. `masks_by_ids`: routes by both.
    `logit_width`: columns of `logits`.
    `projection`: the linear map of `logits` in evaluation mode, None if static or by ids; `norm` stands before it, the
    identity unless `normalise_input` was called.
    """

    global_step: Tensor

    def __init__(self, config: GateSettings, *, experts: int, routing_width: int, logit_width: int) -> None:
        """Make the routing projection [L, D], or the constant logits [1, L] of a static gate.

        Raises ConfigError for fewer than one expert.
        """
        super().__init__()
        if experts < 1:
            message = f"a gate needs at least 1 expert, not {experts}"
            raise ConfigError(message)
        self.experts = experts
        self.logit_width = logit_width
        self.selectors = experts
        self.needs_ids = logit_width == 0
        self.masks_by_ids = False
        self.static = routing_width == 0 and not self.needs_ids
        self.regularisers, self.expert_dropout = config.regularisers, config.expert_dropout
        self.permutation = Permutation(config.permutation, experts) if config.permutation else None
        self.norm: nn.Module = nn.Identity()
        self.projection: nn.Linear | None = None
        self.constant_1L: nn.Parameter | None = None
        if self.static:
            self.constant_1L = nn.Parameter(torch.randn(1, logit_width) * _CONSTANT_SCALE)
        elif not self.needs_ids:
            self.projection = nn.Linear(routing_width, logit_width)
        # Saved with the weights: a gate with a schedule must answer after loading as it did when it was saved.
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    @property
    def max_selected(self) -> int:
        """How many experts a row can select at most."""
        return self.most_chosen() if self.permutation is None or self.permutation.frozen else self.experts

    def most_chosen(self) -> int:
        """Bound on the rule's own selection, before a permutation."""
        return self.experts

    def normalise_input(self) -> None:
        """Centre and scale each column of the routing input over the batch (a static gate, or one by ids, has none).

        A wide input that is not centred, such as one behind a ReLU, moves the logits of all rows together: a gate whose
        selectors saturate then settles on the same experts for every row within a few steps.
        """
        if self.projection is not None:
            self.norm = nn.BatchNorm1d(self.projection.in_features, affine=False)

    def logits(self, routing_BD: Tensor) -> Tensor:
        """Project the routing input, [B, L], in the precision of the parameters whatever autocast says."""
        if self.projection is None:
            message = "a gate that is static or routes by ids has no routing projection"
            raise TypeError(message)
        with full_precision(routing_BD.device.type):
            return self.project(self.norm(routing_BD.to(self.projection.weight.dtype)), self.projection)

    def project(self, normed_BD: Tensor, projection: nn.Linear) -> Tensor:
        """Map the normed routing input to logits [B, L]."""
        projected_BL: Tensor = projection(normed_BD)
        return projected_BL

    def logit_rows(self) -> tuple[Tensor, ...]:
        """The parameters of the logits, as views whose first axis is the logit [L, ...]."""
        if self.constant_1L is not None:
            return (self.constant_1L.mT,)
        return () if self.projection is None else (self.projection.weight, self.projection.bias)

    @abstractmethod
    def choose(self, routed: Tensor) -> Choice:
        """Apply the rule of the paper to routing logits [B, L], or to the ids [B] of a gate that `needs_ids`."""

    def route(self, logits_BL: Tensor | None, ids_B: Tensor | None = None) -> Routing:
        """Turn routing logits (None: a static gate) or ids into the answer; raises TypeError if the needed is None."""
        routed = self.routed(logits_BL, ids_B)
        with full_precision(routed.device.type):
            choice = self.choose(routed)
            penalties = dict(choice.penalties)
            if self.training:
                penalties |= self.regularisers.penalties(choice)
                choice = drop_experts(choice, self.expert_dropout)
            if self.permutation is not None:
                choice = self.permutation(choice)
                penalties |= choice.penalties
        return Routing(choice.weights_BE, choice.selected_BE, penalties)

    def forward(
        self, routing_BD: Tensor | None, ids_B: Tensor | None = None, logits_BL: Tensor | None = None
    ) -> Routing:
        """Weigh the experts for each row of `routing_BD` [B, D] (None: static), or of `ids_B` [B], int64.

        `logits_BL`: what `logits` gives for `routing_BD`, where that is known.
        """
        if logits_BL is None and routing_BD is not None and self.projection is not None:
            logits_BL = self.logits(routing_BD)
        return self.route(logits_BL, ids_B)

    def routed(self, logits_BL: Tensor | None, ids_B: Tensor | None = None) -> Tensor:
        """Pick what this gate routes by: ids, the constant logits or the given ones."""
        by = ids_B if self.needs_ids else logits_BL if self.constant_1L is None else self.constant_1L
        if by is None:
            message = f"{type(self).__name__} needs {'ids' if self.needs_ids else 'a routing input'}, and got none"
            raise TypeError(message)
        return by

    def selector_distance(self, logits_BL: Tensor | None) -> Tensor | None:
        """Distance of each selector from one-hot, [B, K], 0 when converged; None for a gate without selectors."""
        del logits_BL
        return None

    def step(self, global_step: int) -> None:
        """Tell the gate which training step comes next, for its schedules."""
        self.global_step.fill_(global_step)
        self.on_step(global_step)
        if self.permutation is not None:
            self.permutation.step(global_step)

    def on_step(self, global_step: int) -> None:
        """Set what depends on the training step; called by `step` and after loading."""

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - nn.Module's own signature
        """Switch the mode, and take up the step that may have been loaded in place meanwhile."""
        if not self.global_step.is_meta:
            self.step(int(self.global_step))
        return super().train(mode)


def _after_loading(gate: nn.Module, _keys: Any) -> None:
    gate.train(gate.training)


def full_precision(device: str) -> AbstractContextManager[object]:
    """Switch autocast off where it is on: a router in bfloat16 flips its choices."""
    # Entered only where needed: the context would be written into an exported graph.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
