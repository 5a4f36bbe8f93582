"""Platt calibration: what it fits, what it leaves alone, and that the ranker answers with it."""

import numpy as np
import torch

from models.export.calibration import Platt, calibrate, fit_platt
from models.ranker_tensors import TensorInputs
from tests.models.small import TASKS, inputs, lively_ranker, small_config, small_schema


def test_the_slope_and_intercept_of_the_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 100_000).astype(np.float32)
    labels = (rng.random(len(logits)) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(np.float32)
    platt = fit_platt(logits, labels, np.ones_like(logits))
    assert platt is not None
    np.testing.assert_allclose([platt.slope, platt.intercept], [0.5, -1], atol=0.03)


def test_rows_of_weight_0_count_for_nothing() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1, 2000).astype(np.float32)
    labels = (rng.random(2000) < 0.3).astype(np.float32) * (logits > -1)
    weights = np.ones(2000, np.float32)
    spoilt = np.concatenate([labels, np.ones(500, np.float32)])
    more = np.concatenate([logits, np.full(500, -9, np.float32)])
    masked = np.concatenate([weights, np.zeros(500, np.float32)])
    assert fit_platt(more, spoilt, masked) == fit_platt(logits, labels, weights)


def test_what_cannot_be_fitted_is_left() -> None:
    logits, ones = np.linspace(-1, 1, 50, dtype=np.float32), np.ones(50, np.float32)
    assert fit_platt(logits, ones, ones) is None
    assert fit_platt(logits * 0, (logits > 0).astype(np.float32), ones) is None
    assert fit_platt(logits, (logits < 0).astype(np.float32), ones) is None
    assert fit_platt(logits[:0], ones[:0], ones[:0]) is None


def test_the_ranker_answers_calibrated_and_regression_is_untouched() -> None:
    schema = small_schema()
    ranker = lively_ranker(schema, small_config())
    given = TensorInputs.from_numpy(inputs(schema, 400, 400))
    with torch.no_grad():
        before = ranker(given).logits_BT.numpy()
        rate = 0.1 + 0.4 * (before[:, 0] > np.median(before[:, 0]))
        labels = np.stack([np.random.default_rng(0).random(400) < rate, before[:, 1]], 1)
        fitted = calibrate(ranker, before, labels.astype(np.float32), np.ones_like(before), {"like": "platt"})
        after = ranker(given).logits_BT.numpy()
    assert list(fitted) == ["like"]
    platt = fitted["like"]
    assert isinstance(platt, Platt)
    np.testing.assert_allclose(after[:, 0], platt.slope * before[:, 0] + platt.intercept, atol=1e-5)
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    np.testing.assert_allclose((1 / (1 + np.exp(-after[:, 0]))).mean(), labels[:, 0].mean(), atol=1e-3)


def test_chained_tasks_are_left_alone() -> None:
    binary = TASKS[0]
    schema = small_schema(tasks=(binary, binary.model_copy(update={"name": "share"})))
    ranker = lively_ranker(schema, small_config(chains={"share": "like"}))
    logits = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    assert (
        calibrate(
            ranker, logits, (logits > 0.3).astype(np.float32), np.ones_like(logits), {"like": "platt", "share": "platt"}
        )
        == {}
    )
