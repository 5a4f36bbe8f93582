"""The baseline of boosted trees."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.schema import TaskSpec
from pipeline.evaluation import trees
from pipeline.evaluation.curves import Curves
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.evaluation.metrics import auc
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.report.report_page import render
from serving.graph.engine import Engine
from tests.pipeline.conftest import Judged

pytest.importorskip("lightgbm")


def test_trees_are_a_baseline_better_than_a_constant_and_worse_than_who_made_the_labels(judged: Judged) -> None:
    found = judged.evaluation
    assert 0.55 < found.baselines["trees"]["like"]["auc"].value < found.tasks["like"]["auc"].value
    assert found.baselines["trees"]["rating"]["rmse"].value < found.baselines["constant"]["rating"]["rmse"].value


def test_the_same_rows_give_the_same_trees(judged: Judged) -> None:
    schema = Engine(judged.bundle).schema
    one, two = (trees.tree_scores(judged.train, judged.test, schema, 1).scores for _ in range(2))
    assert np.array_equal(one, two)
    labels = load_predictions(judged.out / "predictions.parquet").labels[:, 0]
    assert auc(labels, one[:, 0]) == pytest.approx(judged.evaluation.baselines["trees"]["like"]["auc"].value)


def test_ids_are_read_in_the_form_that_is_better_on_held_out_rows_task_by_task(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real rows each form is trained; which is better is decided here, so that both occur."""
    trained, forms = trees._of_task, []

    def of_task(task: TaskSpec, known: Any, before: Any, now: Any, threads: int) -> Any:
        forms.append((task.name, bool(before.categories)))
        is_better = bool(before.categories) == (task.name == "like")
        return trained(task, known, before, now, threads)._replace(held_out=float(is_better))

    monkeypatch.setattr(trees, "_of_task", of_task)
    found = trees.tree_scores(judged.train, judged.test, Engine(judged.bundle).schema, 1)
    assert found.ids == {"like": "categories", "rating": "numbers"}
    assert forms == [("like", True), ("like", False), ("rating", True), ("rating", False)]


def test_a_report_says_how_trees_read_ids(judged: Judged) -> None:
    assert judged.evaluation.tree_ids.keys() == {"like", "rating"}
    page = render(judged.evaluation, Curves.load(judged.out))
    assert f"like as {judged.evaluation.tree_ids['like']}" in page


def test_without_lightgbm_or_when_switched_off_there_is_no_such_baseline(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert trees.can_grow(1000)
    assert not trees.can_grow(trees.MOST_ROWS + 1)
    off = EvaluateConfig(replicates=50, slice_replicates=50, trees=False)
    assert "trees" not in evaluate(judged.bundle, judged.test, judged.train, tmp_path, config=off).baselines
    monkeypatch.setattr(trees, "find_spec", lambda _: None)
    assert not trees.can_grow(1000)
