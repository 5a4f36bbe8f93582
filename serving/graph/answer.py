"""What a ranking call answers. Shape legend: N candidate rows, K of them ordered, U of them unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.graph.expert_use import ExpertUse


@dataclass(frozen=True)
class RankAnswer:
    """Predictions for every candidate, in the request's order, and their ranking.

    `predictions` float32 [N] by task (probability, or the scale of the label); `scores` float32 [N], the combined
    score; `order` uint32 [K], positions best first; `unknown_items` uint32 [U], positions; `experts` only if asked for.
    """

    model: str
    version: int
    predictions: Mapping[str, NDArray[np.float32]]
    scores: NDArray[np.float32]
    order: NDArray[np.uint32]
    score_version: str
    unknown_user: bool
    unknown_items: NDArray[np.uint32]
    experts: ExpertUse | None = None
    missing_context: tuple[str, ...] = ()
    """Features of the context that the request left out."""
    unseen_context: tuple[str, ...] = ()
    """Those whose id training never saw."""
    clipped: Mapping[str, int] = field(default_factory=dict)
    """How many given numbers lay beyond what training saw, by feature."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where the values came from, by feature; see `sources_of`."""
    request_id: str = ""
    arm: str = ""
    """``current`` or ``canary``: by which arm the answering version was chosen."""
