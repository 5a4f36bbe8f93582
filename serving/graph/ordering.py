"""From predictions to a ranking: by which formula, whether it explores, and who stands behind those that were refined.

Shape legend: N candidates, K of them ordered, M of them refined.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.ranking_policy import BoundPolicy
from contract.score import LARGEST, Score
from features.online.compiled import kernels
from serving.graph.exploration import explore


@dataclass(frozen=True)
class Ordering:
    """How one answer is ordered: by which formula, and with which seed it explores; None: it does not."""

    score_name: str
    seed: int | None = None


def ranking(
    policy: BoundPolicy,
    predictions: Mapping[str, NDArray[np.float32]],
    top_k: int,
    ordering: Ordering | None,
    refined: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """The fields of an answer that predictions [N] lead to; without an `ordering`, by the default formula.

    The candidates `refined` [M] by a cascade stand before the others, whose scores are moved below theirs as one block.
    """
    name = policy.config.default if ordering is None else ordering.score_name
    score, config = policy.scores[name], policy.explore
    drawn: dict[str, Any] = {}
    if config is None or ordering is None or ordering.seed is None:
        scores, order = (
            _in_order(score, predictions) if refined is None else _sorted(below(score(predictions), refined))
        )
    else:
        scores = score(predictions) if refined is None else below(score(predictions), refined)
        order, propensities = explore(config, scores, ordering.seed)
        kept = propensities[:top_k] if top_k else propensities
        drawn = {"exploration": config.version, "propensities": kept.astype(np.float32)}
    cut = order[:top_k] if top_k else order
    return {
        "predictions": predictions,
        "scores": scores,
        "order": cut.astype(np.uint32, copy=False),
        "score_version": score.version,
        "score_name": name,
        **drawn,
    }


def _in_order(score: Score, predictions: Mapping[str, NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Scores [N], and positions [N], best first; of a weighted sum in one compiled pass where numba is installed.

    NumPy takes nine calls, each of which costs microseconds beside a graph that has just filled the caches.
    """
    compiled = kernels()
    if compiled is None or score.config.form != "weighted_sum":
        return _sorted(score(predictions))
    values_TN = np.array([predictions[task] for task in score.tasks], np.float32)
    scores, order = compiled.order(values_TN, score.weights_T, LARGEST)
    return scores, order


def _sorted(scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[Any]]:
    return scores, np.argsort(-scores, kind="stable")


def below(scores: NDArray[np.float32], refined: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores [N] with those that are not `refined` [M] under the least that is, in their own order.

    Example:
        >>> below(np.array([0.5, 0.9, 0.2], np.float32), np.array([0, 2])).argsort().tolist()
        [1, 2, 0]
    """
    others = np.ones(len(scores), dtype=np.bool_)
    others[refined] = False
    if not others.any():
        return scores
    least, most = scores[refined].min(), scores[others].max()
    if most < least:
        return scores
    moved = scores.copy()
    # Far enough that rounding keeps them below.
    moved[others] -= (most - least) + np.float32(1e-6) * max(np.float32(1), abs(most), abs(least))
    return moved
