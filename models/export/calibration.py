"""Calibration of the probabilities on held-out rows, as a part of the model.

So the eager model, the graph and the golden answers stay one and the same function. Platt's slope and intercept are
folded into the task's last layer, at no cost when served; an isotonic curve (`models.heads.isotonic`) stands behind it.

Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood
Methods".

Shape legend: B rows, T tasks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from models.heads.isotonic import Curve, Isotonic, fit_isotonic
from models.heads.towers import Towers
from models.ranker import Ranker

_GRADIENT = 1e-9
"""The fit ends where the gradient of the mean loss is this small."""
_MOST_SLOPE = 100.0
"""Where the labels can be separated, the slope grows without end."""

Array = NDArray[np.float32]
_Floats = NDArray[np.float32] | NDArray[np.float64]
Method = Literal["platt", "isotonic"]


@dataclass(frozen=True)
class Platt:
    """probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float

    def apply(self, logits_B: Array) -> Array:
        """Calibrated logits [B]."""
        return (self.slope * logits_B + self.intercept).astype(np.float32)


def fit_platt(logits_B: Array, labels_B: Array, weights_B: Array) -> Platt | None:
    """Fit by the weighted log loss.

    None where it cannot be: one class only, or logits that rank the wrong way round, which no rescaling should hide.
    """
    has_weight = weights_B > 0
    x, y, w = (array[has_weight].astype(np.float64) for array in (logits_B, labels_B, weights_B))
    if len(x) == 0 or y.min() == y.max() or x.min() == x.max():
        return None
    design = np.stack([x, np.ones_like(x)], axis=1)
    total = w.sum()

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = design @ point
        return _loss(logits, y, w) / total, design.T @ (w * (expit(logits) - y)) / total

    def hessian(point: NDArray[np.float64]) -> NDArray[np.float64]:
        p = expit(design @ point)
        return (design * (w * p * (1 - p))[:, None]).T @ design / total

    # The loss is convex; trust regions shorten steps that would overshoot, as plain Newton steps can.
    fit = minimize(
        loss, np.array([1.0, 0.0]), jac=True, hess=hessian, method="trust-exact", options={"gtol": _GRADIENT}
    )
    slope, intercept = (float(number) for number in fit.x)
    return Platt(slope, intercept) if 0 < slope < _MOST_SLOPE and math.isfinite(intercept) else None


@torch.no_grad()
def calibrate(
    ranker: Ranker, logits_BT: Array, labels_BT: Array, weights_BT: Array, methods: Mapping[str, Method]
) -> dict[str, Platt | Curve]:
    """Fit probabilities on held-out rows by the method named for each task, and change the ranker's towers in place.

    Tasks of a chain are left as they are, first and last: their answers are products, which one tower's curve cannot
    mend. So are tasks whose rows allow no fit, or none that lowers their log loss.

    Returns:
        What the towers now do, by task.
    """
    towers = ranker.network.towers
    chained = {task for pair in towers.chain.order for task in pair}
    fitted: dict[str, Platt | Curve] = {}
    for t, task in enumerate(ranker.schema.tasks):
        if task.kind != "binary" or t in chained or task.name not in methods:
            continue
        fit = fit_platt if methods[task.name] == "platt" else fit_isotonic
        rows = logits_BT[:, t], labels_BT[:, t], weights_BT[:, t]
        calibration = fit(*rows)
        if calibration is not None and _helps(calibration, *rows):
            _apply(towers, t, calibration)
            fitted[task.name] = calibration
    return fitted


def _helps(calibration: Platt | Curve, logits_B: Array, labels_B: Array, weights_B: Array) -> bool:
    # A curve without the stretches that would be too steep may be worse than none.
    before, after = (x.astype(np.float64) for x in (logits_B, calibration.apply(logits_B)))
    return _loss(after, labels_B, weights_B) <= _loss(before, labels_B, weights_B)


def _apply(towers: Towers, task: int, calibration: Platt | Curve) -> None:
    if isinstance(calibration, Curve):
        towers.calibrations[task] = Isotonic(calibration)
        return
    # The mean over members moves as each of them does.
    for tower in towers.of_task(task):
        tower.rescale(calibration.slope, calibration.intercept)


def _loss(logits_B: NDArray[np.float64], labels_B: _Floats, weights_B: _Floats) -> float:
    return float((weights_B * (np.logaddexp(0, logits_B) - labels_B * logits_B)).sum())
