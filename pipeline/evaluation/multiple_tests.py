"""Several tests at once: p-values that keep the chance of any false finding below the level.

Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure", with weights (section 4).
"""

import numpy as np
from scipy.special import ndtri, stdtr

from pipeline.evaluation.ranking import Floats

HEADLINE_SHARE = 0.8
"""How much of the level the headline metrics, which are named beforehand, have to themselves."""
_POWER = 0.8


def two_sided(difference: float, error: float, users: int) -> float:
    """The p-value of a difference with this standard error, by Student's t with users - 1 degrees of freedom.

    Example:
        >>> round(two_sided(1.96, 1.0, 100_000), 3)
        0.05
    """
    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return float(2.0 * stdtr(max(users - 1, 1), -abs(difference) / error))


def holm(p: Floats, weights: Floats) -> Floats:
    """Adjusted p-values [K] of K tests with these weights, which need not sum to 1.

    Example:
        >>> holm(np.array([0.01, 0.04]), np.ones(2)).tolist()
        [0.02, 0.04]
    """
    with np.errstate(divide="ignore"):
        order = np.argsort(p / weights, kind="stable")
    remaining = np.cumsum(weights[order][::-1])[::-1]
    raised = np.maximum.accumulate(remaining * p[order] / weights[order])
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def weights_of(headline: list[bool]) -> Floats:
    """Weights of the tests: the headlines share `HEADLINE_SHARE` among them, the others the rest."""
    first = np.array(headline, dtype=bool)
    if first.all() or not first.any():
        return np.full(first.size, 1.0 / max(first.size, 1))
    return np.where(first, HEADLINE_SHARE / first.sum(), (1.0 - HEADLINE_SHARE) / (~first).sum())


def smallest_shown(error: float, level: float) -> float:
    """The difference that a two-sided test at `level` finds in four of five draws, given the standard error."""
    return float((-ndtri(level / 2.0) + ndtri(_POWER)) * error)
