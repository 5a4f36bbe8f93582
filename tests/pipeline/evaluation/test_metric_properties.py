"""Properties of metrics: what they do not depend on, their bounds, and their oracles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from sklearn.metrics import log_loss as sklearn_log_loss

from pipeline.evaluation.intervals import Users, interval
from pipeline.evaluation.metrics import auc, gauc, log_loss, mae, pr_auc, rmse

Floats = NDArray[np.float64]
ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=30).filter(
    lambda rows: len({label for label, _, _ in rows}) == 2
)
PAIRS = st.lists(st.tuples(st.integers(-999, 999), st.integers(-999, 999)), min_size=1, max_size=30)


def columns(rows: list[tuple[bool, int, int]]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    labels, scores, users = zip(*rows, strict=True)
    return np.array(labels, np.float64), (np.array(scores) + 0.5) / 21, np.array(users, np.int64)


@given(ROWS)
def test_auc_depends_on_the_order_of_the_scores_alone(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = columns(rows)
    assert auc(labels, scores) == pytest.approx(auc(labels, np.exp(3 * scores)))


@given(ROWS)
def test_turned_scores_have_the_rest_of_the_auc(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = columns(rows)
    assert auc(labels, scores) + auc(labels, 1 - scores) == pytest.approx(1)


@given(ROWS)
def test_weights_of_an_auc_count_rows(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, users = columns(rows)
    again = np.repeat(np.arange(len(labels)), users + 1)
    assert auc(labels, scores, (users + 1).astype(np.float64)) == pytest.approx(auc(labels[again], scores[again]))


@given(ROWS)
def test_the_area_below_precision_and_recall_is_the_oracles(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = columns(rows)
    assert pr_auc(labels, scores) == pytest.approx(average_precision_score(labels, scores))


@given(ROWS)
def test_the_log_loss_is_the_oracles(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = columns(rows)
    assert log_loss(labels, scores) == pytest.approx(sklearn_log_loss(labels, scores))


@given(ROWS)
def test_one_user_has_the_auc_of_the_whole(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, _ = columns(rows)
    assert gauc(labels, scores, np.zeros(len(labels), np.int64)) == pytest.approx(auc(labels, scores))


@given(PAIRS)
def test_the_mean_absolute_error_is_at_most_the_root_mean_square(pairs: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    assert mae(labels, scores) <= rmse(labels, scores) * (1 + 1e-9)


@given(PAIRS, st.integers(1, 4))
def test_sums_by_user_add_up(pairs: list[tuple[int, int]], users: int) -> None:
    values = np.array([first for first, _ in pairs])
    sums = Users.of(np.arange(len(values)) % users).sums(values, np.ones(len(values)))
    assert sums.sum(axis=0) == pytest.approx([values.sum(), len(values)], abs=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_an_interval_lies_within_the_draws(draws: list[float]) -> None:
    low, high = interval(np.array(draws))
    assert min(draws) <= low <= high <= max(draws)
