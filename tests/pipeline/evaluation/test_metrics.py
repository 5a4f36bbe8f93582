"""Metrics against scikit-learn and against their definitions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as oracle

from contract.errors import DataError
from pipeline.evaluation import metrics
from pipeline.evaluation.concordance import xauc as xauc_of
from pipeline.evaluation.list_metrics import ndcg

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def _rows(seed: int, rows: int = 500, levels: int = 40) -> Rows:
    """Labels, tied scores and users."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rows) * levels) / levels
    labels = (rng.random(rows) < 0.2 + 0.5 * scores).astype(np.float32)
    return labels, scores.astype(np.float32), rng.integers(0, 30, rows).astype(np.uint64)


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([1, 2, 5, 1000]))
@settings(max_examples=40, deadline=None)
def test_auc_equals_the_oracle_with_ties(seed: int, levels: int) -> None:
    labels, scores, _ = _rows(seed, rows=80, levels=levels)
    assert metrics.auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)


def test_weighted_auc_equals_the_oracle() -> None:
    labels, scores, user = _rows(1)
    weights = user.astype(np.float64) / 7.0
    expected = oracle.roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_integer_weights_mean_repeated_rows() -> None:
    labels, scores, user = _rows(2)
    repeats = (user % 4).astype(np.int64)
    repeated = metrics.auc(np.repeat(labels, repeats), np.repeat(scores, repeats))
    assert metrics.auc(labels, scores, repeats) == pytest.approx(repeated, abs=1e-12)


def test_pr_auc_equals_the_oracle_with_ties() -> None:
    labels, scores, _ = _rows(3)
    expected = oracle.average_precision_score(labels, scores)
    assert metrics.pr_auc(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_gauc_is_the_row_weighted_mean_of_each_users_auc() -> None:
    labels, scores, user = _rows(4, rows=200)
    areas, sizes = [], []
    for one in np.unique(user):
        mine = user == one
        if 0 < labels[mine].sum() < mine.sum():
            areas.append(oracle.roc_auc_score(labels[mine], scores[mine]))
            sizes.append(mine.sum())
    assert len(areas) > 5
    assert metrics.gauc(labels, scores, user) == pytest.approx(np.average(areas, weights=sizes), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ndcg_equals_the_oracle_for_each_user(k: int) -> None:
    labels, scores, user = _rows(5, rows=300, levels=8)
    gains = []
    for one in np.unique(user):
        mine = user == one
        if labels[mine].sum() > 0 and mine.sum() > 1:
            gains.append(oracle.ndcg_score(labels[None, mine], scores[None, mine], k=k))
    assert ndcg(labels, scores, user, k) == pytest.approx(np.mean(gains), abs=1e-12)


def test_pointwise_metrics_equal_the_oracle() -> None:
    labels, scores, _ = _rows(6)
    inner = np.clip(scores, 0.01, 0.99)
    assert metrics.log_loss(labels, inner) == pytest.approx(oracle.log_loss(labels, inner), rel=1e-6)
    assert metrics.rmse(labels, scores) == pytest.approx(oracle.root_mean_squared_error(labels, scores), rel=1e-6)
    assert metrics.mae(labels, scores) == pytest.approx(oracle.mean_absolute_error(labels, scores), rel=1e-6)


def test_normalised_entropy_of_the_mean_is_one() -> None:
    labels, _, _ = _rows(7)
    constant = np.full(labels.size, labels.mean(dtype=np.float64))
    assert metrics.ne(labels, constant) == pytest.approx(1.0, abs=1e-9)
    assert metrics.calibration(labels, constant) == pytest.approx(1.0, abs=1e-9)
    assert metrics.ece(labels, constant) == pytest.approx(0.0, abs=1e-9)


def test_log_loss_of_a_certain_wrong_answer_is_finite() -> None:
    assert metrics.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(metrics.CLIP))


def test_ece_sees_a_gap_in_one_bin() -> None:
    labels = np.array([0.0, 0.0, 1.0, 1.0])
    scores = np.array([0.1, 0.1, 0.6, 0.6])
    assert metrics.ece(labels, scores, bins=2) == pytest.approx((0.1 + 0.4) / 2)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_xauc_equals_its_definition_over_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, 9, 40) / 2.0, rng.integers(0, 12, 40) / 3.0
    label_sign = np.sign(labels[:, None] - labels[None, :])
    agree = (label_sign * np.sign(scores[:, None] - scores[None, :]) + 1) / 2
    expected = agree[label_sign != 0].mean()
    assert xauc_of(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_xauc_of_binary_labels_is_auc() -> None:
    labels, scores, _ = _rows(8)
    assert xauc_of(labels, scores) == pytest.approx(metrics.auc(labels, scores), abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_one_class_label_is_refused_with_its_value_and_what_is_allowed(value: float) -> None:
    labels = np.full(5, value)
    for metric in (metrics.auc, metrics.pr_auc, metrics.ne):
        with pytest.raises(DataError, match=rf"like: all 5 labels are {int(value)}.*both classes"):
            metric(labels, np.linspace(0, 1, 5), name="like")


def test_a_score_that_is_not_finite_is_refused_by_row() -> None:
    with pytest.raises(DataError, match="score nan in row 1"):
        metrics.auc(np.array([0.0, 1.0]), np.array([0.5, np.nan]))


def test_a_label_that_is_not_binary_is_refused_by_row() -> None:
    with pytest.raises(DataError, match=r"label 0\.5 in row 2 is not binary"):
        metrics.auc(np.array([0.0, 1.0, 0.5]), np.array([0.1, 0.2, 0.3]))


def test_no_rows_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        metrics.rmse(np.empty(0), np.empty(0))
    with pytest.raises(DataError, match="shape"):
        metrics.rmse(np.zeros(2), np.zeros(3))


def test_undefined_group_metrics_are_refused() -> None:
    user = np.array([1, 2], dtype=np.uint64)
    with pytest.raises(DataError, match="none of the 2 users"):
        metrics.gauc(np.array([0.0, 1.0]), np.array([0.1, 0.2]), user)
    with pytest.raises(DataError, match="NDCG is not defined"):
        ndcg(np.zeros(2), np.array([0.1, 0.2]), user, 5)
    with pytest.raises(DataError, match="predicted / actual"):
        metrics.calibration(np.zeros(2), np.array([0.1, 0.2]))
    with pytest.raises(DataError, match="no pair"):
        xauc_of(np.full(3, 2.0), np.arange(3.0))
