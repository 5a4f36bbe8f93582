"""Which calibration a task needs: none, Platt's or an isotonic curve, by the log loss of rows that did not fit it.

Half of the users fit, the other half judge, and the other way round. A method is taken where it lowers the loss by more
than one standard error of the gain, so that a calibrated task is left as it is; between two that help, the lower loss
wins.

Shape legend: B rows.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from models.export.calibration import Array, Method, Platt, fit_platt
from models.heads.isotonic import Curve, fit_isotonic

_FITS: Mapping[Method, Callable[[Array, Array, Array], Platt | Curve | None]] = {
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def choose_method(
    logits_B: Array, labels_B: Array, weights_B: Array, user_B: NDArray[np.uint64]
) -> Method | None:  # fmt: skip
    """The method that lowers the log loss of the other half's rows most, or None where neither clearly does."""
    second_half_B = user_B % 2 == 1
    before = _row_losses(logits_B, labels_B)
    total = float(weights_B.sum())
    if total == 0.0:
        return None
    best, best_gain = None, 0.0
    for method, fit in _FITS.items():
        gain_B = np.zeros(logits_B.size)
        for judged_B in (second_half_B, ~second_half_B):
            fitted = fit(logits_B[~judged_B], labels_B[~judged_B], weights_B[~judged_B])
            if fitted is not None:
                after = _row_losses(fitted.apply(logits_B[judged_B]), labels_B[judged_B])
                gain_B[judged_B] = before[judged_B] - after
        gain = float(weights_B @ gain_B) / total
        error = float(np.sqrt((weights_B.astype(np.float64) ** 2) @ np.square(gain_B - gain))) / total
        if gain > max(error, best_gain):
            best, best_gain = method, gain
    return best


def _row_losses(logits_B: Array, labels_B: Array) -> NDArray[np.float64]:
    logits = logits_B.astype(np.float64)
    losses: NDArray[np.float64] = np.logaddexp(0.0, logits) - labels_B * logits
    return losses
