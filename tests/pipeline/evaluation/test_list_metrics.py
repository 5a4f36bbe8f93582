"""Metrics of ranked lists against plain loops."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from pipeline.evaluation import metrics
from pipeline.evaluation.list_metrics import RankedLists

K = 3


def _loop(labels: list[float], scores: list[float]) -> dict[str, float]:
    ranked = [label for _, label in sorted(zip(scores, labels, strict=True), key=lambda pair: -pair[0])]
    first = next((rank for rank, label in enumerate(ranked, 1) if label), 0)
    hits = [sum(ranked[:rank]) for rank in range(1, len(ranked) + 1)]
    precisions = [label * hit / rank for rank, (label, hit) in enumerate(zip(ranked, hits, strict=True), 1)]
    return {
        "mrr@3": 1.0 / first if 0 < first <= K else 0.0,
        "map@3": sum(precisions[:K]) / min(sum(labels), K),
        "precision@3": sum(ranked[:K]) / min(len(ranked), K),
        "recall@3": sum(ranked[:K]) / sum(labels),
    }


def test_metrics_are_those_of_a_loop_over_the_lists() -> None:
    rng = np.random.default_rng(4)
    group = rng.integers(0, 40, 200)
    labels, scores = (rng.random(200) < 0.3).astype(float), rng.permutation(200) / 200
    found = RankedLists.of(labels, scores, group, 40).metrics(K)
    for user in range(40):
        mine = group == user
        judged = mine.sum() > 1 and labels[mine].any()
        assert np.isfinite(found["map@3"][user]) == judged
        if judged:
            for name, value in _loop(labels[mine].tolist(), scores[mine].tolist()).items():
                assert found[name][user] == pytest.approx(value), name
            assert found["ndcg@3"][user] == pytest.approx(ndcg_score(labels[None, mine], scores[None, mine], k=K))
    areas, rows = metrics.user_auc(labels, scores, group)
    present = np.unique(group)
    lists = RankedLists.of(labels, scores, group, 40)
    assert lists.area[present] == pytest.approx(areas, nan_ok=True)
    assert lists.rows[present].tolist() == rows.tolist()


def test_no_value_depends_on_the_order_of_rows_of_equal_score() -> None:
    labels, scores = np.array([1.0, 0.0, 0.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.5, 0.5, 0.1])
    group = np.zeros(5, dtype=np.int64)
    one = RankedLists.of(labels, scores, group, 1).metrics(2)
    order = np.array([2, 1, 4, 3, 0])
    other = RankedLists.of(labels[order], scores[order], group, 1).metrics(2)
    assert {name: float(value[0]) for name, value in one.items()} == {n: float(v[0]) for n, v in other.items()}
    assert one["mrr@2"][0] == pytest.approx(1.0 / ((4 + 1) / (2 + 1)))
    assert one["precision@2"][0] == 0.5
