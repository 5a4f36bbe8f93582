"""Marks of slices that differ from the whole: honest for all slices together."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluation.influence import task_influence
from pipeline.evaluation.intervals import Bootstrap, Users
from pipeline.evaluation.measure import Context, EvaluateConfig, measure
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation, Slice
from pipeline.evaluation.task_metrics import evaluate_tasks
from pipeline.evaluation.task_rows import TaskRows

QUICK = EvaluateConfig(replicates=50, slice_replicates=50, at=(3,))
Masks = dict[str, dict[str, NDArray[np.bool_]]]


def _rows(seed: int, users: int = 60, each: int = 10) -> tuple[Predictions, NDArray[np.float64]]:
    """Clicks of users who are alike, and their logits, so that a test can make the model worse somewhere."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users, dtype=np.uint64), each)
    logit = rng.normal(size=user.size) + 0.7 * rng.normal(size=users)[user.astype(np.int64)]
    labels = (rng.random(user.size) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)[:, None]
    scores = (1.0 / (1.0 + np.exp(-logit - 0.5 * rng.normal(size=user.size)))).astype(np.float32)[:, None]
    none = np.zeros(user.size, dtype=np.int64)
    # No user has the hash of a missing one, 0.
    return Predictions({"click": "binary"}, labels, np.ones_like(labels), scores, user + 1, user, none), logit


def _slices(rows: Predictions, masks: Masks, out: Path) -> dict[str, dict[str, Slice]]:
    return measure(rows, Context("model", "rows", {}, masks), QUICK, out).slices


def _marks(slices: dict[str, dict[str, Slice]]) -> list[tuple[str, str, str]]:
    return [
        (name, value, metric)
        for name, parts in slices.items()
        for value, part in parts.items()
        for metric, test in part.tests["click"].items()
        if test.differs
    ]


def test_slices_that_are_alike_are_marked_in_one_evaluation_of_twenty(tmp_path: Path) -> None:
    marked = 0
    for seed in range(20):
        rows, _ = _rows(seed)
        group = np.random.default_rng((1, seed)).integers(0, 8, rows.rows)
        masks = {"group": {str(value): group == value for value in range(8)}}
        marked += bool(_marks(_slices(rows, masks, tmp_path)))
    # Without adjustment some of sixteen tests would be marked in half of the evaluations: ten.
    assert marked <= 4


def test_a_slice_on_which_the_model_says_nothing_is_marked_as_worse(tmp_path: Path) -> None:
    rows, _ = _rows(0, users=300)
    bad = np.random.default_rng(3).random(rows.rows) < 0.2
    rng = np.random.default_rng(4)
    scores = np.where(bad[:, None], rng.permutation(rows.scores), rows.scores)
    found = _slices(rows.with_scores(scores), {"half": {"bad": bad, "good": ~bad}}, tmp_path)
    test = found["half"]["bad"].tests["click"]["auc"]
    assert test.differs
    assert test.difference == pytest.approx(found["half"]["bad"].tasks["click"]["auc"].value - _auc(tmp_path))
    assert test.difference < -0.1


def _auc(out: Path) -> float:
    return Evaluation.load(out).tasks["click"]["auc"].value


def test_slices_of_few_users_and_slices_that_are_almost_everything_are_not_tested(tmp_path: Path) -> None:
    rows, _ = _rows(0)
    few = rows.user <= 19
    masks = {"user": {"few": few, "most": ~few}, "all": {"rows": np.ones(rows.rows, dtype=bool)}}
    found = _slices(rows, masks, tmp_path)
    assert [part.tests for parts in found.values() for part in parts.values()] == [{}, {}, {}]


def test_the_spread_by_influence_is_that_of_the_bootstrap() -> None:
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(400), 20)
    logit = rng.normal(size=user.size) + 0.7 * rng.normal(size=400)[user]
    labels = (rng.random(user.size) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    scores = (1.0 / (1.0 + np.exp(-logit - rng.normal(size=user.size)))).astype(np.float32)
    tasks = {
        "like": TaskRows("like", "binary", labels, scores, Users.of(user)),
        "watch": TaskRows("watch", "regression", logit.astype(np.float32), scores, Users.of(user)),
    }
    found = evaluate_tasks(tasks, Bootstrap(400, 1000))
    for task, metric in (("like", "auc"), ("like", "calibration"), ("watch", "rmse")):
        influence, estimate = (
            task_influence(tasks[task], found.statistics[task]).metrics[metric],
            found.scores[task][metric],
        )
        assert influence.value == pytest.approx(estimate.value, rel=1e-9)
        slope = influence.value * (1.0 - influence.value) if metric == "auc" else influence.value
        spread = slope * float(np.sqrt(np.square(influence.by_user).sum()))
        assert 2.0 * 1.966 * spread == pytest.approx(estimate.high - estimate.low, rel=0.1)
