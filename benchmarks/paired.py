"""Differences of runs with the same seeds."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Paired(NamedTuple):
    """A variant's mean difference to the baseline over the same seeds, with a 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """In Markdown, bold where 0 is outside the interval."""
        text = f"{self.mean:+.4f} ({self.low:+.4f} .. {self.high:+.4f})"
        return text if self.low <= 0 <= self.high else f"**{text}**"


def paired(values: Sequence[float], base: Sequence[float]) -> Paired:
    """Compare seed by seed."""
    gaps = [value - other for value, other in zip(values, base, strict=True)]
    mean = statistics.fmean(gaps)
    if len(gaps) == 1:
        return Paired(mean, -float("inf"), float("inf"))
    half = float(stats.t.ppf(0.975, len(gaps) - 1)) * statistics.stdev(gaps) / len(gaps) ** 0.5
    return Paired(mean, mean - half, mean + half)


def crossed(values: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> Paired:
    """Compare a table of seeds by nights, whose cells share their seed with a row and their night with a column.

    The variance is clustered both ways (Cameron, Gelbach and Miller 2011, "Robust Inference With Multiway
    Clustering"), and not less than by either alone; Student's t has one degree of freedom less than there are seeds or
    nights.

    >>> str(crossed([[1.0, 2.0], [1.2, 2.2], [1.1, 2.1]], [[0.9, 1.8], [1.1, 2.0], [1.0, 1.9]]))
    '+0.1500 (-0.4853 .. +0.7853)'
    """
    gaps = np.array(values) - np.array(base)
    seeds, nights = gaps.shape
    mean = float(gaps.mean())
    if seeds == 1 or nights == 1:
        return paired(np.ravel(values).tolist(), np.ravel(base).tolist())
    rest = gaps - mean
    of_seeds = float((rest.sum(axis=1) ** 2).sum()) * seeds / (seeds - 1)
    of_nights = float((rest.sum(axis=0) ** 2).sum()) * nights / (nights - 1)
    of_cells = float((rest**2).sum()) * gaps.size / (gaps.size - 1)
    variance = max(of_seeds + of_nights - of_cells, of_seeds, of_nights) / gaps.size**2
    half = float(stats.t.ppf(0.975, min(seeds, nights) - 1)) * variance**0.5
    return Paired(mean, mean - half, mean + half)


def p_value(values: Sequence[float], base: Sequence[float]) -> float:
    """Of the two-sided paired t test; 1 for a single pair, which says nothing.

    >>> round(p_value([1.0, 2.1, 3.0], [0.0, 1.0, 2.1]), 3)
    0.003
    """
    gaps = [value - other for value, other in zip(values, base, strict=True)]
    if len(gaps) == 1 or len(set(gaps)) == 1:
        return 1.0 if len(gaps) == 1 or gaps[0] == 0.0 else 0.0
    return float(stats.ttest_1samp(gaps, 0.0).pvalue)
