"""Isotonic calibration: a rising curve from a tower's logit to the logit that the labels show.

The pool of adjacent violators gives blocks of rows with rising rates; between the blocks' centres the curve is
straight, and beyond the outermost it goes on with slope 1. So it rises everywhere: no two rows change places, and no
AUC changes. It is straight in logits, which a graph computes with minima and maxima alone.

Sources: Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates"; Oron
and Flournoy 2017, "Centered Isotonic Regression", for the straight lines between the centres.

Shape legend: B rows, S segments between K = S + 1 knots.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

_MOST_BINS = 64
_LEAST_OF_A_CLASS = 20
"""Labels of the rarer class to a bin, on average: fewer say little about a rate."""
_STEEPEST = 10.0
"""Steeper stretches would show rounding errors of the logit in the probability."""

Array = NDArray[np.float32]
Double = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """The knots: at `logits`, rising, the answers are `calibrated`, rising too."""

    logits: tuple[float, ...]
    calibrated: tuple[float, ...]

    def apply(self, logits_B: Array) -> Array:
        """Calibrated logits [B]."""
        answers: Array = Isotonic(self)(torch.from_numpy(logits_B).unsqueeze(1)).squeeze(1).numpy()
        return answers


class Isotonic(nn.Module):
    """A curve as a layer."""

    lower_S: Tensor
    width_S: Tensor
    slope_S: Tensor

    def __init__(self, curve: Curve) -> None:
        """Take the knots, at least one."""
        super().__init__()
        x_K, z_K = (torch.tensor(values, dtype=torch.float64) for values in (curve.logits, curve.calibrated))
        self.first, self.last, self.start = curve.logits[0], curve.logits[-1], curve.calibrated[0]
        self.register_buffer("lower_S", x_K[:-1].float())
        self.register_buffer("width_S", x_K.diff().float())
        self.register_buffer("slope_S", (z_K.diff() / x_K.diff()).float())

    def forward(self, logits_B1: Tensor) -> Tensor:
        """[B, 1] -> [B, 1]."""
        # A sum of rising terms rises after rounding too, which one slope after another would not.
        along_BS = torch.minimum((logits_B1 - self.lower_S).relu(), self.width_S) * self.slope_S
        beyond_B1 = (logits_B1 - self.first).clamp(max=0.0) + (logits_B1 - self.last).clamp(min=0.0)
        return self.start + beyond_B1 + along_BS.sum(dim=1, keepdim=True)


def fit_isotonic(logits_B: Array, labels_B: Array, weights_B: Array) -> Curve | None:
    """Fit on held-out rows; None where their labels are too few, or all of one class, or do not rise with the logit."""
    has_weight = weights_B > 0
    x, y, w = (array[has_weight].astype(np.float64) for array in (logits_B, labels_B, weights_B))
    rarer = min(int((y > 0).sum()), int((y <= 0).sum()))
    bins = min(_MOST_BINS, rarer // _LEAST_OF_A_CLASS)
    if bins <= 1 or x.min() == x.max():
        return None
    centres, rates, sizes = _blocks(*_binned(x, y, w, bins))
    return _curve(centres, _inside(rates, sizes))


def _binned(x: Double, y: Double, w: Double, bins: int) -> tuple[Double, Double, Double]:
    # Equal logits share a bin, whatever their number.
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, x, side="right")
    xs, ys, total = (
        np.bincount(place, values, minlength=len(edges) + 1).astype(np.float64) for values in (w * x, w * y, w)
    )
    filled = total > 0
    return xs[filled] / total[filled], ys[filled] / total[filled], total[filled]


def _blocks(centres: Double, rates: Double, sizes: Double) -> tuple[Double, Double, Double]:
    """Pool neighbours until the rates rise: each block's mean logit, rate and weight."""
    starts = isotonic_regression(rates, weights=sizes).blocks[:-1]
    total = np.add.reduceat(sizes, starts)
    return np.add.reduceat(sizes * centres, starts) / total, np.add.reduceat(sizes * rates, starts) / total, total


def _inside(rates: Double, sizes: Double) -> Double:
    """Rates of 0 and 1, which only the outermost blocks can have, as what half a label more would make of them."""
    inside = rates.copy()
    if inside[0] <= 0:
        inside[0] = min(0.5 / (sizes[0] + 1), inside[1] / 2 if len(inside) > 1 else 0.5)
    if inside[-1] >= 1:
        inside[-1] = 1 - min(0.5 / (sizes[-1] + 1), (1 - inside[-2]) / 2 if len(inside) > 1 else 0.5)
    return inside


def _curve(centres: Double, rates: Double) -> Curve | None:
    knots = [(float(x), float(z)) for x, z in zip(centres, np.log(rates) - np.log1p(-rates), strict=True)]
    climbing = knots[:1]
    for x, z in knots[1:]:
        before_x, before_z = climbing[-1]
        # Where the labels ask for more, the curve catches up at the next knots.
        reached = min(z, before_z + _STEEPEST * (x - before_x))
        if before_x < x and before_z < reached:
            climbing.append((x, reached))
    if len(climbing) == 1:
        return None
    return Curve(tuple(x for x, _ in climbing), tuple(z for _, z in climbing))
