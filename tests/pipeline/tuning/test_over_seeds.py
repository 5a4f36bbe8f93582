"""The paired test over seeds."""

import numpy as np
import pytest
from scipy import stats

from contract.errors import DataError
from pipeline.tuning.over_seeds import compare_seeds, seed_lines

RECIPE = [{"like": {"auc": a}, "rating": {"rmse": r}} for a, r in ((0.70, 1.0), (0.72, 1.1), (0.71, 1.05))]
TUNED = [{"like": {"auc": a}, "rating": {"rmse": r}} for a, r in ((0.76, 0.9), (0.77, 1.2), (0.765, 1.02))]


def test_a_difference_is_tested_seed_by_seed_and_adjusted_for_the_number_of_tasks() -> None:
    like, rating = compare_seeds(RECIPE, TUNED)
    alone = [
        stats.ttest_rel([r[task][metric] for r in TUNED], [r[task][metric] for r in RECIPE])
        for task, metric in (("like", "auc"), ("rating", "rmse"))
    ]
    assert like.p == pytest.approx(2 * alone[0].pvalue)
    assert rating.p == pytest.approx(max(2 * alone[0].pvalue, alone[1].pvalue))
    low, high = alone[0].confidence_interval(0.95)
    assert [like.low, like.high] == pytest.approx([low, high])


def test_a_lower_error_is_better_and_a_lower_auc_is_worse() -> None:
    less = [{"like": {"auc": 0.6 + i * 1e-3}, "rating": {"rmse": 0.5 + i * 1e-3}} for i in range(3)]
    more = [{"like": {"auc": 0.5 + i * 1.1e-3}, "rating": {"rmse": 0.4 + i * 1.1e-3}} for i in range(3)]
    assert [each.verdict for each in compare_seeds(less, more)] == ["worse", "better"]


def test_equal_runs_are_level() -> None:
    assert [each.verdict for each in compare_seeds(RECIPE, RECIPE)] == ["level", "level"]


def test_no_metric_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no task has a metric"):
        compare_seeds([{"like": {}}, {"like": {}}], [{"like": {}}, {"like": {}}])


def test_the_table_has_a_row_for_each_task() -> None:
    head, _, *rows = seed_lines(compare_seeds(RECIPE, TUNED))
    assert head.startswith("| task | metric | recipe | tuned |")
    assert rows[0].startswith(f"| like | auc | {np.mean([0.70, 0.72, 0.71]):.4f} |")
