"""Explored rankings follow their formulas, and their propensities are the probabilities with which they are drawn."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.ranking_policy import EpsilonGreedy, Exploration, PlackettLuce
from serving.graph.exploration import explore

SCORES = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30)
POLICIES = st.one_of(
    st.builds(EpsilonGreedy, method=st.just("epsilon"), epsilon=st.floats(0.01, 1), depth=st.integers(0, 40)),
    st.builds(PlackettLuce, method=st.just("plackett_luce"), temperature=st.floats(0.05, 9), depth=st.integers(0, 40)),
)
THREE = np.array([0.3, 0.9, 0.1], np.float32)
DRAWS = 30_000


def first_place(config: Exploration, scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of each candidate [N] to be ranked first, by the formulas."""
    if isinstance(config, PlackettLuce):
        logits = scores.astype(np.float64) / config.temperature
        weights = np.exp(logits - logits.max())
        return np.asarray(weights / weights.sum())
    shares = np.full(len(scores), config.epsilon / len(scores))
    shares[np.argmax(scores)] += 1 - config.epsilon
    return shares


@given(SCORES, POLICIES, st.integers(0, 2**64 - 1))
def test_a_ranking_holds_each_candidate_once_with_propensities_above_nothing(
    scores: list[float], policy: Exploration, seed: int
) -> None:
    values = np.array(scores, np.float32)
    order, propensities = explore(policy, values, seed)
    assert sorted(order.tolist()) == list(range(len(scores)))
    assert ((propensities >= 0) & (propensities <= 1)).all()
    assert propensities[0] == pytest.approx(first_place(policy, values)[order[0]], rel=1e-6, abs=1e-12)
    depth = policy.depth or len(scores)
    assert (propensities[depth:] == 1).all()
    assert (np.diff(values[order[depth:]]) <= 0).all()


@given(SCORES, POLICIES, st.integers(0, 2**64 - 1))
def test_the_same_request_is_answered_alike(scores: list[float], policy: Exploration, seed: int) -> None:
    one, other = (explore(policy, np.array(scores, np.float32), seed) for _ in range(2))
    assert one.order.tolist() == other.order.tolist()


@pytest.mark.parametrize(
    "policy",
    [
        EpsilonGreedy(method="epsilon", epsilon=0.4),
        EpsilonGreedy(method="epsilon", epsilon=0.4, depth=1),
        PlackettLuce(method="plackett_luce", temperature=0.5),
        PlackettLuce(method="plackett_luce", temperature=0.5, depth=2),
    ],
    ids=lambda policy: policy.version,
)
def test_rankings_are_drawn_as_often_as_their_propensities_say(policy: Exploration) -> None:
    counts: Counter[tuple[int, ...]] = Counter()
    told: dict[tuple[int, ...], float] = {}
    for seed in range(DRAWS):
        order, propensities = explore(policy, THREE, seed)
        ranking = tuple(order.tolist())
        counts[ranking] += 1
        told[ranking] = float(propensities.prod())
    assert sum(told.values()) == pytest.approx(1)
    for ranking, probability in told.items():
        spread = np.sqrt(probability * (1 - probability) / DRAWS)
        assert abs(counts[ranking] / DRAWS - probability) < 5 * spread + 1e-9


def test_plackett_luce_by_gumbel_noise_has_the_formulas_probabilities() -> None:
    policy = PlackettLuce(method="plackett_luce", temperature=0.5)
    weights = np.exp(THREE.astype(float) / 0.5)
    drawn = {}
    for seed in range(200):
        order, propensities = explore(policy, THREE, seed)
        drawn[tuple(order.tolist())] = propensities
    for ranking in permutations(range(3)):
        left, expected = weights.sum(), []
        for candidate in ranking:
            expected.append(weights[candidate] / left)
            left -= weights[candidate]
        assert drawn[ranking] == pytest.approx(expected)
