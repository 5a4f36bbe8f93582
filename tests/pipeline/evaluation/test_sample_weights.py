"""Sample weights count in every metric: a row of weight 3 is three rows, a list whose rows weigh 3 is three lists."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.intervals import Users
from pipeline.evaluation.ranking import Floats
from pipeline.evaluation.task_metrics import task_statistics
from pipeline.evaluation.task_rows import TaskRows

Kind = Literal["binary", "regression"]


def draw(seed: int, kind: Kind, rows: int = 120) -> tuple[Floats, Floats, Users, Floats]:
    """Labels, scores with ties, users and whole weights."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rows), 1)
    labels = (rng.random(rows) < scores) if kind == "binary" else np.round(3 * scores + rng.normal(size=rows))
    return (
        labels.astype(np.float64),
        scores,
        Users.of(rng.integers(0, 15, rows)),
        rng.integers(1, 4, rows).astype(float),
    )


def values(rows: TaskRows) -> dict[str, float]:
    found: dict[str, float] = {}
    for statistic in task_statistics(rows, (2, 5)).statistics:
        whole = statistic(np.ones(rows.users.count))
        found |= dict(zip(statistic.names, whole.tolist(), strict=True))
    return found


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("kind", ["binary", "regression"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_row_of_weight_3_is_three_rows(kind: Kind, *, first_order: bool, seed: int) -> None:
    labels, scores, users, weights = draw(seed, kind)
    again = np.repeat(np.arange(labels.size), weights.astype(np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.evaluation.task_metrics.EXACT_ROWS", 0 if first_order else 20_000)
        weighted = values(TaskRows("t", kind, labels, scores, users, weights=weights))
        repeated = values(TaskRows("t", kind, labels[again], scores[again], Users(users.group[again], users.count)))
    by_list = {name for name in weighted if "@" in name}
    assert weighted.keys() == repeated.keys()
    for name in weighted.keys() - by_list:
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-9, abs=1e-12), name


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_list_of_weight_3_is_three_lists(seed: int) -> None:
    labels, scores, users, _ = draw(seed, "binary")
    weight = np.random.default_rng(seed).integers(1, 4, users.count)
    weighted = values(TaskRows("t", "binary", labels, scores, users, weights=weight[users.group].astype(float)))
    copies = [np.flatnonzero(weight[users.group] > copy) for copy in range(3)]
    again = np.concatenate(copies)
    group = np.concatenate([users.group[rows] + copy * users.count for copy, rows in enumerate(copies)])
    repeated = values(TaskRows("t", "binary", labels[again], scores[again], Users.of(group)))
    for name in repeated:
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-9), name


def test_lists_may_go_by_another_key_than_the_user() -> None:
    labels, scores, users, weights = draw(3, "binary")
    other = Users.of(np.random.default_rng(4).integers(0, 9, labels.size))
    by_user = values(TaskRows("t", "binary", labels, scores, other, weights=weights))
    by_list = values(TaskRows("t", "binary", labels, scores, users, weights=weights, lists=other))
    for name, value in by_user.items():
        assert by_list[name] == pytest.approx(value, rel=1e-9), name
    watch, predicted, users, weights = draw(5, "regression")
    expected = values(TaskRows("t", "regression", watch, predicted, other, weights=weights))["gxauc"]
    found = values(TaskRows("t", "regression", watch, predicted, users, weights=weights, lists=other))["gxauc"]
    assert found == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_xauc_within_users_is_that_of_a_loop_over_pairs(seed: int) -> None:
    labels, scores, users, weights = draw(seed, "regression", rows=40)
    areas, rows = [], []
    for user in range(users.count):
        mine = np.flatnonzero(users.group == user)
        right = total = 0.0
        for i in mine:
            for j in mine:
                if labels[i] > labels[j]:
                    total += weights[i] * weights[j]
                    right += weights[i] * weights[j] * (0.5 * (scores[i] == scores[j]) + (scores[i] > scores[j]))
        if total:
            areas.append(right / total)
            rows.append(weights[mine].sum())
    found = values(TaskRows("t", "regression", labels, scores, users, weights=weights))
    if areas:
        assert found["gxauc"] == pytest.approx(np.average(areas, weights=rows))
    else:
        assert "gxauc" not in found
