"""What a ranking call answers. Shape legend: N candidate rows, K of them ordered, U of them unknown, E experts.

Clients have these classes too, over whichever `arrays` they have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.graph.arrays import Flags, Floats, Matrix, Positions, mean_of, used_experts


@dataclass(frozen=True)
class GateUse:
    """How a gate weighed the experts of its level, float32 [N, E]; 0 where it did not use one."""

    level: int
    tasks: tuple[str, ...]
    weights: Matrix


@dataclass(frozen=True)
class ExpertUse:
    """All gates of a model, level by level; none for a model without gates, or whose graph does not tell."""

    gates: tuple[GateUse, ...] = ()

    def used(self) -> Flags:
        """Which experts at least one gate used, level by level [N, experts of all levels]."""
        return used_experts([(gate.level, gate.weights) for gate in self.gates])

    @property
    def union_over_n(self) -> float:
        """The share of all experts that at least one gate used, the mean over the rows; 0 without gates."""
        return mean_of(self.used()) if self.gates else 0.0


@dataclass(frozen=True)
class RankAnswer:
    """Predictions for every candidate, in the request's order, and their ranking.

    `predictions` float32 [N] by task (probability, or the scale of the label); `scores` float32 [N], the combined
    score; `order` uint32 [K], positions best first; `unknown_items` uint32 [U], positions; `experts` only if asked for.
    """

    model: str
    version: int
    predictions: Mapping[str, Floats]
    scores: Floats
    order: Positions
    score_version: str
    unknown_user: bool
    unknown_items: Positions
    experts: ExpertUse | None = None
    missing_context: tuple[str, ...] = ()
    """Features of the context that the request left out."""
    unseen_context: tuple[str, ...] = ()
    """Those whose id training never saw."""
    clipped: Mapping[str, int] = field(default_factory=dict)
    """How many given numbers lay beyond what training saw, by feature."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the values came from, by feature; see `features.online.value_sources`. Only if asked for."""
    request_id: str = ""
    arm: str = ""
    """``current`` or ``canary``: by which arm the answering version was chosen."""
    stage: str = ""
    """``cascade``, ``fewer experts`` or ``fallback`` where less than the whole model answered; see `stages`."""
    refined: int = 0
    """How many candidates of a cascade the experts saw."""
    score_name: str = ""
    """The name of the formula."""
    exploration: str = ""
    """How `order` was drawn, such as ``epsilon depth=10 epsilon=0.1``; empty: it is that of the scores."""
    propensities: Floats | None = None
    """The probability [K] of each place's candidate, given those before it; None without exploration."""
