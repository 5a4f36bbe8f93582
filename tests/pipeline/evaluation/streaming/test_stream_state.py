"""A pass over rows in stretches: divided and merged in any way it says what an evaluation in memory says."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import metrics
from pipeline.evaluation.intervals import Bootstrap
from pipeline.evaluation.measure import Context, EvaluateConfig, measure
from pipeline.evaluation.predictions import Predictions, joined
from pipeline.evaluation.streaming.overall import overall
from pipeline.evaluation.streaming.stream_state import Budget, StreamState, passed
from pipeline.evaluation.task_metrics import evaluate_tasks

ROWS = 2000
SMALL = Budget(rows=400, exact_rows=10**6, units=64)


def rows_of(seed: int, rows: int = ROWS, *, weighted: bool = False) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random((rows, 2)), 2).astype(np.float32)
    labels = np.stack((rng.random(rows) < scores[:, 0], 5 * scores[:, 1] + rng.normal(size=rows)), axis=1)
    weights = (rng.random((rows, 2)) < 0.8).astype(np.float32)
    user = rng.integers(1, 200, rows).astype(np.uint64)
    return Predictions(
        {"like": "binary", "rating": "regression"},
        labels.astype(np.float32),
        weights * rng.integers(1, 4, (rows, 2)).astype(np.float32) if weighted else weights,
        scores,
        user,
        np.arange(rows, dtype=np.uint64),
        np.zeros(rows, dtype=np.int64),
    )


def state_of(rows: Predictions, cuts: list[int], budget: Budget) -> StreamState:
    """One state for each stretch between cuts, merged."""
    bounds = sorted({0, *cuts, rows.rows})
    states = []
    for begin, end in pairwise(bounds):
        state = StreamState(budget, first_row=begin)
        for first in range(begin, end, 170):
            state.update(rows.take(np.arange(first, min(first + 170, end))))
        states.append(state)
    merged = StreamState(budget)
    for other in (*states, StreamState(budget)):
        merged.merge(StreamState.from_bytes(other.to_bytes()))
    return merged


def test_rows_that_fit_come_out_as_they_went_in() -> None:
    rows = rows_of(0)
    kept, numbers = state_of(rows, [900, 2000], Budget()).users.finish()
    assert numbers.tolist() == list(range(ROWS))
    for name, array in rows.by_row().items():
        assert np.array_equal(getattr(kept, name), array), name


@given(cuts=st.lists(st.integers(1, ROWS - 1), max_size=4), weighted=st.booleans())
@settings(max_examples=6, deadline=None)
def test_merged_parts_are_the_whole(cuts: list[int], *, weighted: bool) -> None:
    rows = rows_of(1, weighted=weighted)
    state = state_of(rows, cuts, SMALL)
    assert not state.is_whole
    kept, _ = state.users.finish()
    bootstrap = Bootstrap(kept.users().count, 50)
    found = overall(state, evaluate_tasks(kept.by_task(kept.users()), bootstrap).scores, rows.tasks, bootstrap)
    whole = evaluate_tasks(rows.by_task(rows.users()), Bootstrap(rows.users().count, 50)).scores
    assert found.rows == ROWS
    exact = {"like": ("log_loss", "ne", "calibration"), "rating": ("rmse", "mae", "calibration", "r2")}
    for task, names in exact.items():
        for name in names:
            assert found.scores[task][name].value == pytest.approx(whole[task][name].value, rel=1e-9), name
            assert found.scores[task][name].n == whole[task][name].n
    if not weighted:
        assert found.scores["like"]["auc"].value == pytest.approx(whole["like"]["auc"].value, abs=1e-12)
    else:
        assert "auc" not in found.scores["like"]
        assert any("have weights" in note for note in found.notes)


def test_users_are_kept_with_all_their_rows_or_not_at_all() -> None:
    rows = rows_of(2)
    kept, numbers = state_of(rows, [1500], SMALL).users.finish()
    assert 0 < kept.rows <= SMALL.rows
    assert np.array_equal(np.flatnonzero(np.isin(rows.user, kept.user)), numbers)
    assert np.array_equal(rows.labels[numbers], kept.labels)


def test_beyond_the_keys_that_fit_the_auc_lies_between_two_bounds() -> None:
    rows = rows_of(3)
    mine = rows.weights[:, 0] > 0
    scores = rows.scores.copy()
    scores[:, 0] = np.random.default_rng(3).random(ROWS) * 1e-3 + 0.5
    rows = rows.with_scores(scores)
    area = metrics.auc(rows.labels[mine, 0], scores[mine, 0])
    for exact_rows, is_exact in ((10**6, True), (500, False)):
        bounds = state_of(rows, [700, 701], Budget(400, exact_rows, 64)).tasks["like"].pairs.finish()
        assert bounds.low <= area <= bounds.high
        assert (bounds.low == bounds.high) == is_exact
        assert bounds.high - bounds.low < 0.02


def test_an_evaluation_says_which_figures_are_of_all_rows(tmp_path: Path) -> None:
    rows = rows_of(4)
    config = EvaluateConfig(replicates=50, slice_replicates=50, memory_rows=400, exact_rows=500)
    state = passed([rows.take(np.arange(ROWS // 2)), rows.take(np.arange(ROWS // 2, ROWS))], config.budget)
    kept, _ = state.users.finish()
    found = measure(kept, Context("m", "d", {}), config, tmp_path, state)
    assert found.rows == ROWS
    assert found.tasks["like"]["log_loss"].n == found.tasks["like"]["auc"].n > found.tasks["like"]["gauc"].n
    assert found.findings[0].startswith("2,000 rows are more than the 400 that are kept in memory")
    assert "AUC of all rows lies for certain between" in found.findings[1]
    area = found.tasks["like"]["auc"]
    assert area.low < area.value < area.high


def test_a_file_whose_first_labels_are_all_0_or_1_may_still_be_of_a_regression() -> None:
    rows = rows_of(5, rows=40)
    first = rows.take(np.arange(20))
    first.labels[:, 1] = np.round(first.scores[:, 1])
    assert joined([Predictions(**{**vars(first), "tasks": {"like": "binary", "rating": "binary"}}), rows]).tasks == {
        "like": "binary",
        "rating": "regression",
    }
