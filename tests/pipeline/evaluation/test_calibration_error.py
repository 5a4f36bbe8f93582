"""The expected calibration error without the bias of its plain form."""

import numpy as np

from pipeline.evaluation.calibration_error import CalibrationError
from pipeline.evaluation.intervals import Users
from pipeline.evaluation.metrics import bins_of
from pipeline.evaluation.ranking import Floats


def _draw(seed: int, offset: float) -> tuple[CalibrationError, float]:
    """2,000 rows of 200 users with correlated labels, whose true logit is off by `offset`; and the true error."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(200), 10)
    logit = -1.5 + rng.normal(size=user.size) + 0.5 * rng.normal(size=200)[user]
    score, rate = _sigmoid(logit), _sigmoid(logit + offset)
    labels = rng.random(user.size) < rate
    bins = bins_of(score, 20)
    true = np.abs(np.bincount(bins, weights=score - rate)).sum() / user.size
    return CalibrationError.of(score - labels, Users.of(user), bins), float(true)


def _sigmoid(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def test_intervals_cover_the_true_error_of_calibrated_and_other_models() -> None:
    for offset in (0.0, 0.3):
        covered = 0
        for seed in range(80):
            error, true = _draw(seed, offset)
            value, low, high = error.estimate()
            assert low <= value <= high
            covered += low <= true <= high
        assert covered >= 71, offset


def test_the_estimate_is_not_raised_by_noise() -> None:
    draws = [_draw(seed, 0.3) for seed in range(40)]
    plain = np.mean([float(error(np.ones(200))[0]) for error, _ in draws])
    estimate, true = np.mean([error.estimate()[0] for error, _ in draws]), np.mean([true for _, true in draws])
    assert abs(estimate - true) < 0.2 * (plain - true) + 0.004
    assert plain > true


def test_a_model_without_any_gap_has_no_error() -> None:
    users = Users.apart(4)
    assert CalibrationError.of(np.zeros(4), users, np.array([0, 0, 1, 1])).estimate() == (0.0, 0.0, 0.0)
