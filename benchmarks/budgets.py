"""What a tuning budget costs: the loss of the trial that validation chooses out of so many random ones.

A trial is a pair of what it is chosen by (the less the better) and what it then counts with.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from benchmarks.paired import Paired

DRAWS = 2000
Trials = Sequence[tuple[float, float]]


def chances(trials: int, budget: int) -> NDArray[np.float64]:
    """By place in the order of validation, how likely a trial is the best of `budget` that are drawn.

    >>> chances(3, 2).round(3).tolist()
    [0.667, 0.333, 0.0]
    """
    behind = np.arange(trials - 1, -1, -1, dtype=np.float64)
    drawn = behind >= budget - 1
    # Of all ways to draw the budget, those that take this trial and others from behind it.
    log = _log_choose(np.where(drawn, behind, budget), budget - 1) - _log_choose(np.float64(trials), budget)
    return np.where(drawn, np.exp(log), 0.0)


def after_budget(trials: Trials, budget: int) -> float:
    """The mean over all ways to draw `budget` trials of what the chosen one counts with.

    >>> after_budget([(0.2, 1.0), (0.1, 4.0), (0.3, 2.0)], 3)
    4.0
    """
    counted = [counts for _, counts in sorted(trials)]
    return float(np.dot(chances(len(counted), budget), counted))


def enough(trials: Trials, goal: float) -> int | None:
    """The least budget whose mean is no more than `goal`; None if no budget's is."""
    return next((b for b in range(1, len(trials) + 1) if after_budget(trials, b) <= goal), None)


def redrawn(trials: Trials, base: Trials, budget: int) -> tuple[Paired, Paired]:
    """What a budget costs, and how much more than with the base, with 95 % intervals by drawing trials anew.

    Trials of one number have the same settings, so both are drawn by the same numbers.
    """
    draw = np.random.default_rng(budget)
    losses, gaps = [], []
    for _ in range(DRAWS):
        numbers = draw.integers(0, len(trials), len(trials))
        ours, other = (after_budget([each[n] for n in numbers], budget) for each in (trials, base))
        losses.append(ours)
        gaps.append(ours - other)
    whole, whole_base = after_budget(trials, budget), after_budget(base, budget)
    return _interval(whole, losses), _interval(whole - whole_base, gaps)


def _interval(mean: float, drawn: Sequence[float]) -> Paired:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Paired(mean, float(low), float(high))


def _log_choose(total: NDArray[np.float64] | np.float64, chosen: int) -> NDArray[np.float64]:
    return np.asarray(gammaln(total + 1.0) - gammaln(chosen + 1.0) - gammaln(total - chosen + 1.0))
