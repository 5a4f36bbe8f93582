"""Differences of runs with the same seeds."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

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
