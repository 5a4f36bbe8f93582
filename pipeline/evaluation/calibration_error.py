"""The expected calibration error without the upward bias of its plain form, and an interval that covers it.

The plain form sums the absolute gaps of the bins, so noise alone makes it larger: for a perfectly calibrated model it
is never 0, and a bootstrap repeats the noise on top. Here the gaps are taken as a direction times an unknown size,
plus noise with the covariance of the users' sums. The size whose plain form has its median at the observed one is the
estimate; those for which the observed one lies in the middle 96 % are the interval. The direction is the straight line
through the gaps, plus what they deviate from it as far as noise does not explain that (James and Stein).

The interval leaves 2 % a side rather than 2.5 because the direction is estimated; `benchmarks.evaluation` simulates
its coverage.

Shape legend: U users, B bins, D draws of the noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.intervals import Users
from pipeline.evaluation.ranking import Floats

_DRAWS = 1000
_STREAM = 0xECE
_TAIL = 0.02
_STEPS = 30
"""Halvings of the range in which a size is sought: nine digits."""


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error.

    `gaps` [U, B] sums score minus label by user and bin, `rows` [U] the weights of each user's rows.
    """

    gaps: Floats
    rows: Floats
    names: tuple[str, ...] = ("ece",)

    @classmethod
    def of(
        cls, gap: Floats, users: Users, bins: NDArray[np.int64], weights: Floats | None = None
    ) -> "CalibrationError":
        """From score minus label times weight [n], the bin of each row [n] and the weights [n]; None: ones."""
        width = int(bins.max()) + 1
        cells = users.group * width + bins
        gaps = np.bincount(cells, weights=gap, minlength=users.count * width).reshape(users.count, width)
        return cls(
            gaps.astype(np.float64), np.bincount(users.group, weights=weights, minlength=users.count).astype(float)
        )

    def __call__(self, counts: Floats) -> Floats:
        """The plain form, as often as each user counts; two models' differences are taken from it."""
        return np.array([np.abs(counts @ self.gaps).sum() / max(float(counts @ self.rows), 1e-300)])

    def many(self, counts: Floats) -> Floats:
        """As `__call__` for each draw of counts, [D, U]."""
        return self.of_totals(counts @ self.sums)

    @cached_property
    def sums(self) -> Floats:
        """Gaps and rows side by side, [U, B + 1]."""
        return np.concatenate((self.gaps, self.rows[:, None]), axis=1)

    def of_totals(self, totals: Floats) -> Floats:
        """The plain form of each draw's totals, [D, B + 1]."""
        return np.abs(totals[:, :-1]).sum(axis=1, keepdims=True) / np.maximum(totals[:, -1:], 1e-300)

    def estimate(self) -> tuple[float, float, float]:
        """The error without bias, and the ends of its 95 % interval."""
        gap_B, covariance_BB = self._moments()
        plain = float(np.abs(gap_B).sum())
        if plain == 0.0:
            return 0.0, 0.0, 0.0
        values, vectors = np.linalg.eigh(covariance_BB)
        noise_DB = np.random.default_rng(_STREAM).normal(size=(_DRAWS, gap_B.size)) @ (
            vectors * np.sqrt(np.clip(values, 0.0, None))
        ).T  # fmt: skip
        direction_B = _direction(gap_B, covariance_BB)

        def below(size: float) -> float:
            return float(np.mean(np.abs(size * direction_B + noise_DB).sum(axis=1) <= plain))

        most = plain + 8.0 * float(np.sqrt(np.diag(covariance_BB)).sum())
        value, low, high = (_size(below, share, most) for share in (0.5, 1.0 - _TAIL, _TAIL))
        return value, low, high

    def _moments(self) -> tuple[Floats, Floats]:
        """Gaps of the bins as shares of all rows, and their covariance, users drawn as a whole."""
        rows, users = float(self.rows.sum()), int(np.count_nonzero(self.rows))
        gap_B = self.gaps.sum(axis=0) / rows
        residual_UB = self.gaps - np.outer(self.rows, gap_B)
        return gap_B, residual_UB.T @ residual_UB / rows**2 * (users / max(users - 1, 1))


def _direction(gap_B: Floats, covariance_BB: Floats) -> Floats:
    """The shape of the gaps, their absolute values summing to 1."""
    bins = gap_B.size
    line_B, strength = np.zeros(bins), 1.0
    if bins > 4:  # noqa: PLR2004 - a line and the shrinking need so many degrees of freedom
        floor = 1e-3 * float(np.diag(covariance_BB).mean()) + 1e-300
        inverse = np.linalg.pinv(covariance_BB + floor * np.eye(bins))
        design = np.stack((np.ones(bins), np.linspace(-1.0, 1.0, bins)), axis=1)
        line_B = design @ np.linalg.lstsq(design.T @ inverse @ design, design.T @ inverse @ gap_B, rcond=None)[0]
        rest_B = gap_B - line_B
        spread = float(rest_B @ inverse @ rest_B)
        strength = max(0.0, 1.0 - (bins - 4) / spread) if spread > 0.0 else 0.0
    shape_B = line_B + strength * (gap_B - line_B)
    total = float(np.abs(shape_B).sum())
    return shape_B / total if total > 0.0 else gap_B / float(np.abs(gap_B).sum())


def _size(below: Callable[[float], float], share: float, most: float) -> float:
    """Where the falling function `below` passes `share`; 0 where it starts under it."""
    if below(0.0) <= share:
        return 0.0
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if below(middle) > share else (low, middle)
    return (low + high) / 2.0
