"""Platt calibration of the probabilities: one slope and one intercept a task, folded into the task's last layer.

So the eager model, the graph and the golden answers stay one and the same function, at no cost when served.

Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood
Methods"; the fit is Newton's method on the log loss.

Shape legend: B rows, T tasks.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.ranker import Ranker
from models.towers import Tower

_STEPS = 50
_ENOUGH = 1e-10
_RIDGE = 1e-6
"""Keeps the slope finite where the labels can be separated."""
_MOST_SLOPE = 100.0

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Platt:
    """probability = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float


def fit_platt(logits_B: Array, labels_B: Array, weights_B: Array) -> Platt | None:
    """Fit by the weighted log loss.

    None where it cannot be: one class only, or logits that rank the wrong way round, which no rescaling should hide.
    """
    kept = weights_B > 0
    x, y, w = (array[kept].astype(np.float64) for array in (logits_B, labels_B, weights_B))
    if len(x) == 0 or y.min() == y.max() or x.min() == x.max():
        return None
    design = np.stack([x, np.ones_like(x)], axis=1)
    total, point = w.sum(), np.array([1.0, 0.0])
    value = _loss(design @ point, y, w) / total
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ point, -500, 500)))
        gradient = design.T @ (w * (p - y)) / total
        hessian = (design * (w * p * (1 - p))[:, None]).T @ design / total + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # Halved until it helps: far from the end a full step of Newton's can make things worse.
        size = 1.0
        while size > _ENOUGH and (after := _loss(design @ (point - size * step), y, w) / total) > value:
            size /= 2
        if size <= _ENOUGH or value - after < _ENOUGH:
            break
        point, value = point - size * step, after
    slope, intercept = (float(number) for number in point)
    return Platt(slope, intercept) if 0 < slope < _MOST_SLOPE and math.isfinite(intercept) else None


@torch.no_grad()
def calibrate(ranker: Ranker, logits_BT: Array, labels_BT: Array, weights_BT: Array) -> dict[str, Platt]:
    """Fit each probability on held-out rows and change the ranker's heads in place.

    Tasks of a chain are left as they are, first and last: their answers are products, which one tower's line cannot
    mend. So are tasks whose rows allow no fit.

    Returns:
        What was folded in, by task.
    """
    towers = ranker.network.towers
    chained = {task for pair in towers.chain.order for task in pair}
    fitted = {}
    for t, (task, tower) in enumerate(zip(ranker.schema.tasks, towers.towers, strict=True)):
        if task.kind != "binary" or t in chained or not isinstance(tower, Tower):
            continue
        platt = fit_platt(logits_BT[:, t], labels_BT[:, t], weights_BT[:, t])
        if platt is not None:
            tower.head.weight.mul_(platt.slope)
            tower.head.bias.mul_(platt.slope).add_(platt.intercept)
            fitted[task.name] = platt
    return fitted


def _loss(logits_B: NDArray[np.float64], labels_B: NDArray[np.float64], weights_B: NDArray[np.float64]) -> float:
    return float((weights_B * (np.logaddexp(0, logits_B) - labels_B * logits_B)).sum())
