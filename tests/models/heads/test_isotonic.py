"""Isotonic calibration: rising everywhere, true to the labels, left alone where labels are few."""

import numpy as np
import pytest
import torch

from models.export import export
from models.export.calibration import calibrate
from models.heads.isotonic import Curve, Isotonic, fit_isotonic
from models.ranker_tensors import TensorInputs
from tests.models.small import inputs, lively_ranker, small_config, small_schema

KNEE = Curve((-2.0, 0.0, 1.0), (-3.0, -1.0, 2.0))


def probability(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def bent(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels whose rate no slope and intercept can give: flat, then steep."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, rows).astype(np.float32)
    return logits, (rng.random(rows) < np.where(logits < 0, 0.1, 0.6)).astype(np.float32)


def test_the_layer_is_straight_between_the_knots_and_goes_on_beyond_them() -> None:
    given = torch.tensor([[-5.0], [-2.0], [-1.0], [0.0], [0.5], [1.0], [4.0]])
    expected = torch.tensor([[-6.0], [-3.0], [-2.0], [-1.0], [0.5], [2.0], [5.0]])
    torch.testing.assert_close(Isotonic(KNEE)(given), expected)


def test_no_two_rows_change_places_after_rounding_too() -> None:
    logits, labels = bent(20_000)
    curve = fit_isotonic(logits, labels, np.ones_like(logits))
    assert curve is not None
    close = np.sort(np.concatenate([logits, np.nextafter(logits, np.float32(np.inf))]))
    assert (np.diff(curve.apply(close)) >= 0).all()
    apart = np.linspace(-30, 30, 1000, dtype=np.float32)
    assert (np.diff(curve.apply(apart)) > 0).all()


def test_probabilities_become_the_rates_of_the_labels() -> None:
    logits, labels = bent(100_000)
    curve = fit_isotonic(logits, labels, np.ones_like(logits))
    assert curve is not None
    answers = probability(curve.apply(logits))
    for low, high, rate in ((-3, -1, 0.1), (1, 3, 0.6)):
        rows = (logits > low) & (logits < high)
        assert answers[rows].mean() == pytest.approx(rate, abs=0.02)
    assert (np.diff(curve.calibrated) / np.diff(curve.logits)).max() <= 10


def test_rows_of_weight_0_count_for_nothing() -> None:
    logits, labels = bent(5000)
    ones, masked = np.ones_like(logits), np.concatenate([np.ones(5000), np.zeros(500)]).astype(np.float32)
    more = np.concatenate([logits, np.full(500, -9, np.float32)])
    spoilt = np.concatenate([labels, np.ones(500, np.float32)])
    assert fit_isotonic(more, spoilt, masked) == fit_isotonic(logits, labels, ones)


def test_classes_that_the_logit_separates_give_finite_knots() -> None:
    logits = np.linspace(-3, 3, 2000, dtype=np.float32)
    curve = fit_isotonic(logits, (logits > 0).astype(np.float32), np.ones_like(logits))
    assert curve is not None
    assert np.isfinite(curve.calibrated).all()


def test_what_cannot_be_fitted_is_left() -> None:
    logits, ones = np.linspace(-1, 1, 500, dtype=np.float32), np.ones(500, np.float32)
    falling = (logits < 0).astype(np.float32)
    few = np.zeros(500, np.float32)
    few[-30:] = 1
    assert fit_isotonic(logits, ones, ones) is None
    assert fit_isotonic(logits * 0, falling, ones) is None
    assert fit_isotonic(logits, falling, ones) is None
    assert fit_isotonic(logits, few, ones) is None
    assert fit_isotonic(logits[:0], ones[:0], ones[:0]) is None


def test_eager_model_and_graph_answer_calibrated(tmp_path_factory: pytest.TempPathFactory) -> None:
    schema = small_schema()
    ranker = lively_ranker(schema, small_config(gate={"name": "softmax"}))
    rows = inputs(schema, 2000, 2000)
    with torch.no_grad():
        ranker.get_parameter("network.towers.towers.0.head.weight").mul_(10)
        before = ranker(TensorInputs.from_numpy(rows)).logits_BT.numpy()
        low = before[:, 0] < np.median(before[:, 0])
        labels = (np.random.default_rng(0).random(before.shape) < np.where(low, 0.3, 0.5)[:, None]).astype(np.float32)
        fitted = calibrate(ranker, before, labels, np.ones_like(before), {"like": "isotonic"})
        after = ranker(TensorInputs.from_numpy(rows)).logits_BT.numpy()
    curve = fitted["like"]
    assert isinstance(curve, Curve)
    np.testing.assert_allclose(after[:, 0], curve.apply(before[:, 0]), atol=1e-5)
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    np.testing.assert_array_equal(np.argsort(after[:, 0], kind="stable"), np.argsort(before[:, 0], kind="stable"))
    report = export(ranker, schema, rows, tmp_path_factory.mktemp("isotonic") / "model.onnx")
    assert report.worst_difference <= 1e-5


def test_a_curve_that_would_make_answers_worse_is_left() -> None:
    """Logits so close together that the labels ask for a steeper curve than there may be."""
    ranker = lively_ranker(small_schema(), small_config(gate={"name": "softmax"}))
    spread = np.random.default_rng(0).random(4000) * 2 - 1
    logits = np.stack([1e-2 * spread, spread], axis=1).astype(np.float32)
    labels = (np.random.default_rng(1).random(logits.shape) < np.where(spread > 0, 0.9, 0.1)[:, None]).astype(
        np.float32
    )
    assert calibrate(ranker, logits, labels, np.ones_like(logits), {"like": "isotonic"}) == {}
