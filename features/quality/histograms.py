"""Bins that show a distribution: of equal width, or of equal ratio where most values are small and a few are large.

Quantile bins, which drift is measured with, all hold equally many rows: drawn, they are a flat line whatever the data.
"""

import numpy as np
from numpy.typing import NDArray

from contract.settings import Settings

BINS = 24
_FEW = 30
_HALVES = 2.0**52
"""Beyond this a half is lost in rounding, and with it the edges between whole numbers."""
_RATIO = 20.0
"""How many times the middle half's width the whole range must be before bins are of equal ratio."""


class Histogram(Settings):
    """The share of rows in each bin between `edges` [B + 1]; values beyond the ends count in the outer bins.

    `log` bins are of equal ratio, and zeros are in the first one.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    log: bool = False


def histogram_edges(values: NDArray[np.float64], bins: int = BINS) -> tuple[tuple[float, ...], bool]:
    """Edges of bins for finite values [n], n >= 1, and whether they are of equal ratio.

    Whole numbers of a short range have a bin each; the outer half percent of other values is left to the outer bins.

    Example:
        >>> histogram_edges(np.array([0.0, 1.0, 1.0, 2.0]))[0]
        (-0.5, 0.5, 1.5, 2.5)
    """
    least, most = float(values.min()), float(values.max())
    whole = bool((values == np.round(values)).all()) and max(-least, most) < _HALVES
    if whole and most - least <= _FEW:
        return tuple(float(edge) for edge in np.arange(least - 0.5, most + 1.0)), False
    low, first, third, high = (float(edge) for edge in np.quantile(values, (0.005, 0.25, 0.75, 0.995)))
    positive = values[values > 0]
    if least >= 0 and positive.size and most - least > _RATIO * max(third - first, 0.0):
        start = max(float(np.quantile(positive, 0.005)), most * 1e-9)
        if most > start:
            return tuple(float(edge) for edge in np.geomspace(start, most, bins + 1)), True
    if high <= low:
        low, high = least, most
    if high <= low:
        room = abs(low) * 0.5 or 0.5
        low, high = low - room, high + room
    return tuple(float(edge) for edge in np.linspace(low, high, bins + 1)), False


def bin_shares(values: NDArray[np.float64], edges: tuple[float, ...]) -> tuple[float, ...]:
    """The share of finite values [n] in each bin, all zeros without values."""
    place = np.clip(np.searchsorted(np.array(edges), values, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    return tuple(round(float(share), 6) for share in counts / max(values.size, 1))


def histogram(values: NDArray[np.float64]) -> Histogram | None:
    """The histogram of finite values [n]; None without any."""
    if values.size == 0:
        return None
    edges, log = histogram_edges(values)
    return Histogram(edges=edges, shares=bin_shares(values, edges), log=log)
