"""How far two distributions are apart.

Shape legend: B bins, n and m values.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

LEAST_SHARE = 1e-4
"""What an empty bin counts as, so that logarithms stay finite."""


def psi(before: Sequence[float], now: Sequence[float]) -> float | None:
    """The population stability index of shares [B]: the sum of (q - p) ln(q / p); None if they cannot be compared.

    Example:
        >>> psi((0.5, 0.5), (0.5, 0.5))
        0.0
    """
    if len(before) != len(now):
        return None
    p, q = (np.maximum(np.array(shares), LEAST_SHARE) for shares in (before, now))
    return round(float(((q - p) * np.log(q / p)).sum()), 6)


def chance_of_psi(value: float, bins: int, before: int, now: int) -> float:
    """The chance of a PSI at least so large between samples of one distribution.

    PSI times n m / (n + m) follows chi-squared with B - 1 degrees of freedom then (Yurdakul 2018, "Statistical
    properties of population stability index", section 3).
    """
    return float(chdtrc(max(bins - 1, 1), value * before * now / max(before + now, 1)))


def jensen_shannon(before: Sequence[float], now: Sequence[float]) -> float:
    """The Jensen-Shannon divergence of shares [B] to base 2: 0 for the same ones, 1 for nothing in common.

    Example:
        >>> jensen_shannon((1.0, 0.0), (0.0, 1.0))
        1.0
    """
    p, q = np.array(before), np.array(now)
    middle = (p + q) / 2.0
    return float(sum(_relative_entropy(each, middle) for each in (p, q)) / 2.0)


def _relative_entropy(shares: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    there = shares > 0
    return float((shares[there] * np.log2(shares[there] / other[there])).sum())


def kolmogorov_smirnov(before: NDArray[np.float64], now: NDArray[np.float64]) -> float | None:
    """The largest gap between the distribution functions of values [n] and [m]; None where either has none.

    Example:
        >>> kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([3.0]))
        1.0
    """
    if before.size == 0 or now.size == 0:
        return None
    places = np.concatenate([before, now])
    first, second = (np.searchsorted(np.sort(each), places, side="right") / each.size for each in (before, now))
    return float(np.abs(first - second).max())
