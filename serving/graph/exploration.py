"""Rankings that explore, with the propensity of each place: the probability of its candidate, given those before it.

The product of the propensities is the probability of the ranking, which is what off-policy estimates divide by. What is
drawn follows from the request's id alone, so that a call that is tried again has the same answer on every replica.
Shape legend: N candidates, K of them ordered.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.ranking_policy import EpsilonGreedy, Exploration


class ExploredOrder(NamedTuple):
    """Candidates [N] in the order that was drawn, and the propensity [N] of each place."""

    order: NDArray[np.int64]
    propensities: NDArray[np.float64]


def explore(config: Exploration, scores: NDArray[np.float32], seed: int) -> ExploredOrder:
    """Draw a ranking of candidates by their scores [N]."""
    draw = np.random.default_rng(seed)
    greedy = np.argsort(-scores, kind="stable")
    depth = min(config.depth or len(scores), len(scores))
    if isinstance(config, EpsilonGreedy):
        return _epsilon(config.epsilon, greedy, depth, draw)
    return _plackett_luce(scores.astype(np.float64) / config.temperature, greedy, depth, draw)


def _epsilon(epsilon: float, greedy: NDArray[np.int64], depth: int, draw: np.random.Generator) -> ExploredOrder:
    left = len(greedy) - np.arange(depth)
    explored = np.flatnonzero(draw.random(depth) < epsilon)
    propensities = np.ones(len(greedy))
    propensities[:depth] = 1 - epsilon + epsilon / left
    order = greedy.tolist()
    for place in explored.tolist():
        # Those that are left stand behind the place in the order of their scores.
        chosen = place + int(draw.integers(left[place]))
        if chosen != place:
            order.insert(place, order.pop(chosen))
            propensities[place] = epsilon / left[place]
    return ExploredOrder(np.array(order, dtype=np.int64), propensities)


def _plackett_luce(
    logits: NDArray[np.float64], greedy: NDArray[np.int64], depth: int, draw: np.random.Generator
) -> ExploredOrder:
    """The order of logits with Gumbel noise is a draw from the model (Yellott 1977)."""
    noisy = np.argsort(-(logits + draw.gumbel(size=len(logits))), kind="stable")[:depth]
    others = np.ones(len(logits), dtype=np.bool_)
    others[noisy] = False
    order = np.concatenate([noisy, greedy[others[greedy]]])
    in_order = logits[order]
    left = np.logaddexp.accumulate(in_order[::-1])[::-1]
    propensities = np.ones(len(logits))
    propensities[:depth] = np.exp(np.minimum(in_order[:depth] - left[:depth], 0.0))
    return ExploredOrder(order, propensities)
