"""Bootstrap intervals clustered by user."""

import numpy as np
import pytest

from pipeline.evaluation import metrics
from pipeline.evaluation.concordance import xauc as xauc_of
from pipeline.evaluation.intervals import Bootstrap, RankStatistic, SumStatistic, Users, interval
from pipeline.evaluation.list_metrics import ndcg
from pipeline.evaluation.ranking import Floats, Ranking
from pipeline.evaluation.task_metrics import TaskRows, evaluate_tasks, task_statistics


def _rows(seed: int, users: int = 80, each: int = 5) -> tuple[Floats, Floats, Users]:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), each)
    taste = rng.normal(size=users)[user]
    scores = taste + rng.normal(size=user.size)
    labels = (scores + taste + rng.normal(size=user.size) > 0.5).astype(np.float64)
    return labels, scores, Users.of(user)


def test_draws_are_reproducible_and_draw_as_many_users_as_there_are() -> None:
    first = list(Bootstrap(7, 20, seed=3).draws())
    assert all(np.array_equal(a, b) for a, b in zip(first, Bootstrap(7, 20, seed=3).draws(), strict=True))
    assert {counts.sum() for counts in first} == {7.0}
    assert not np.array_equal(first[0], next(Bootstrap(7, 20, seed=4).draws()))


def test_groups_of_very_many_users_spread_as_the_users_do() -> None:
    labels, scores, users = _rows(0, users=4000)
    rows = TaskRows("like", "binary", labels, 1.0 / (1.0 + np.exp(-scores)), users)
    every, grouped = (
        evaluate_tasks({"like": rows}, Bootstrap(users.count, 1000, units=units)).scores["like"]
        for units in (1 << 16, 500)
    )
    for metric in ("auc", "log_loss", "gauc", "ndcg@10"):
        one, other = every[metric], grouped[metric]
        assert other.value == one.value
        assert other.high - other.low == pytest.approx(one.high - one.low, rel=0.15), metric


def test_a_replicate_is_the_metric_of_the_rows_drawn() -> None:
    labels, scores, users = _rows(0)
    probabilities = 1.0 / (1.0 + np.exp(-scores))
    rows = TaskRows("like", "binary", labels, probabilities, users)
    counts = next(Bootstrap(users.count, 1, seed=1).draws())
    repeats = counts[users.group].astype(np.int64)
    drawn_labels, drawn_scores = np.repeat(labels, repeats), np.repeat(probabilities, repeats)
    values = {n: v for s in task_statistics(rows).statistics for n, v in zip(s.names, s(counts), strict=True)}
    for name in ("auc", "pr_auc", "log_loss", "ne", "calibration"):
        assert values[name] == pytest.approx(getattr(metrics, name)(drawn_labels, drawn_scores), rel=1e-9), name
    # Bins are cut once, on all rows.
    gap = np.bincount(metrics.bins_of(probabilities, 20), weights=repeats * (probabilities - labels))
    assert values["ece"] == pytest.approx(np.abs(gap).sum() / repeats.sum(), rel=1e-9)
    # GAUC and NDCG take a user drawn twice as two users.
    copies = np.concatenate([np.arange(n) for n in repeats])
    drawn_users = np.repeat(users.group, repeats) * 1000 + copies
    assert values["gauc"] == pytest.approx(metrics.gauc(drawn_labels, drawn_scores, drawn_users), rel=1e-9)
    assert values["ndcg@10"] == pytest.approx(ndcg(drawn_labels, drawn_scores, drawn_users, 10), rel=1e-9)


def test_xauc_replicates_are_right_to_first_order() -> None:
    labels, scores, users = _rows(1)
    rows = TaskRows("watch", "regression", labels + 0.1 * scores, scores, users)
    xauc = next(s for s in task_statistics(rows).statistics if s.names == ("xauc",))
    exact = RankStatistic(Ranking.of(labels, scores), users.group[Ranking.of(labels, scores).order])
    as_binary = task_statistics(TaskRows("watch", "regression", labels, scores, users)).statistics[1]
    draws = list(Bootstrap(users.count, 200).draws())
    first_order = np.array([float(as_binary(counts)[0]) for counts in draws])
    resampled = np.array([float(exact(counts)[0]) for counts in draws])
    assert np.std(first_order) == pytest.approx(np.std(resampled), rel=0.05)
    assert np.corrcoef(first_order, resampled)[0, 1] > 0.99
    whole = np.ones(users.count)
    assert float(xauc(whole)[0]) == pytest.approx(xauc_of(rows.labels, rows.scores), rel=1e-9)


def test_many_rows_are_resampled_to_first_order_with_nearly_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores, users = _rows(3, users=300)
    rows = TaskRows("like", "binary", labels, np.round(1.0 / (1.0 + np.exp(-scores)), 2), users)
    bootstrap = Bootstrap(users.count, 300)
    exact = evaluate_tasks({"like": rows}, bootstrap).scores["like"]
    monkeypatch.setattr("pipeline.evaluation.task_metrics.EXACT_ROWS", 0)
    quick = evaluate_tasks({"like": rows}, bootstrap).scores["like"]
    assert quick.keys() == exact.keys()
    for name in ("auc", "pr_auc"):
        assert quick[name].value == pytest.approx(exact[name].value, abs=1e-12), name
        assert quick[name].low == pytest.approx(exact[name].low, abs=0.003), name
        assert quick[name].high == pytest.approx(exact[name].high, abs=0.003), name


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(60), 4)
        error = rng.normal(size=60)[user] + rng.normal(size=user.size)
        rows = TaskRows("watch", "regression", np.zeros(user.size), error, Users.of(user))
        found = evaluate_tasks({"watch": rows}, Bootstrap(60, 200, seed)).scores["watch"]["rmse"]
        covered += found.low <= np.sqrt(2.0) <= found.high
    assert 87 <= covered <= 100


def test_rows_of_one_user_widen_the_interval() -> None:
    labels, scores, users = _rows(2, users=40, each=20)
    by_user = evaluate_tasks(
        {"t": TaskRows("t", "binary", labels, 1 / (1 + np.exp(-scores)), users)}, Bootstrap(40, 300)
    ).scores
    apart = Users.apart(labels.size)
    by_row = evaluate_tasks(
        {"t": TaskRows("t", "binary", labels, 1 / (1 + np.exp(-scores)), apart, grouped=False)},
        Bootstrap(labels.size, 300),
    ).scores
    assert "gauc" not in by_row["t"]
    assert by_row["t"]["auc"].value == by_user["t"]["auc"].value
    wide, narrow = by_user["t"]["auc"], by_row["t"]["auc"]
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_draws_of_few_users_are_cut_further_out() -> None:
    """By Hesterberg 2015: with 5 users at the share of sqrt(5 / 4) times Student's quantile, -2.776."""
    assert interval(np.arange(1001.0), users=5) == pytest.approx((0.956, 999.044), abs=0.01)
    assert interval(np.arange(1001.0), users=10**6) == pytest.approx((25.0, 975.0), abs=0.01)


def test_undefined_draws_are_left_out_of_an_interval() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))[0])


def test_a_metric_without_a_value_is_left_out() -> None:
    rows = TaskRows("net", "regression", np.array([-1.0, 1.0]), np.array([0.5, 0.5]), Users.apart(2))
    assert "calibration" not in evaluate_tasks({"net": rows}, Bootstrap(2, 50)).scores["net"]


def test_a_task_without_rows_says_so_and_the_others_go_on() -> None:
    nobody = TaskRows("watch", "regression", np.empty(0), np.empty(0), Users(np.empty(0, dtype=np.int64), 2))
    labels = TaskRows("like", "binary", np.array([0.0, 1.0]), np.array([0.2, 0.7]), Users.apart(2))
    results = evaluate_tasks({"watch": nobody, "like": labels}, Bootstrap(2, 50))
    assert results.scores["watch"] == {}
    assert set(results.undefined["watch"].values()) == {"the task applies to none of the rows"}
    assert results.scores["like"]["auc"].value == 1.0


def test_a_task_of_one_class_keeps_the_metrics_that_it_defines() -> None:
    users = Users.of(np.array([1, 1, 2, 2]))
    scores = np.array([0.1, 0.2, 0.3, 0.2])
    results = evaluate_tasks({"hate": TaskRows("hate", "binary", np.zeros(4), scores, users)}, Bootstrap(2, 50))
    assert results.scores["hate"].keys() == {"log_loss", "ece"}
    for metric in ("auc", "pr_auc", "ne", "calibration", "gauc", "ndcg@10"):
        assert results.undefined["hate"][metric] == "none of the 4 rows is positive"


def test_lists_of_one_row_define_no_ndcg() -> None:
    rows = TaskRows("like", "binary", np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.2, 0.3]), Users.of(np.arange(3)))
    results = evaluate_tasks({"like": rows}, Bootstrap(3, 50))
    assert results.undefined["like"]["ndcg@10"] == "no user has two rows of which one is positive"
    assert results.undefined["like"]["gauc"] == "no user has rows of both classes"


def test_sums_are_weighed_by_user() -> None:
    users = Users.of(np.array([5, 5, 9]))
    statistic = SumStatistic(("mean",), users.sums(np.array([1.0, 2.0, 4.0]), np.ones(3)), lambda t: [t[0] / t[1]])
    assert statistic(np.array([1.0, 2.0]))[0] == pytest.approx((3.0 + 8.0) / 4.0)
