"""The baseline of boosted trees."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation import trees
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.evaluation.metrics import auc
from pipeline.evaluation.prediction_file import load_predictions
from serving.graph.engine import Engine
from tests.pipeline.conftest import Judged

pytest.importorskip("lightgbm")


def test_trees_are_a_baseline_better_than_a_constant_and_worse_than_who_made_the_labels(judged: Judged) -> None:
    found = judged.evaluation
    assert 0.55 < found.baselines["trees"]["like"]["auc"].value < found.tasks["like"]["auc"].value
    assert found.baselines["trees"]["rating"]["rmse"].value < found.baselines["constant"]["rating"]["rmse"].value


def test_the_same_rows_give_the_same_trees(judged: Judged) -> None:
    schema = Engine(judged.bundle).schema
    one, two = (trees.tree_scores(judged.train, judged.test, schema, 1) for _ in range(2))
    assert np.array_equal(one, two)
    labels = load_predictions(judged.out / "predictions.parquet").labels[:, 0]
    assert auc(labels, one[:, 0]) == pytest.approx(judged.evaluation.baselines["trees"]["like"]["auc"].value)


def test_without_lightgbm_or_when_switched_off_there_is_no_such_baseline(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert trees.can_grow(1000)
    assert not trees.can_grow(trees.MOST_ROWS + 1)
    off = EvaluateConfig(replicates=50, slice_replicates=50, trees=False)
    assert "trees" not in evaluate(judged.bundle, judged.test, judged.train, tmp_path, config=off).baselines
    monkeypatch.setattr(trees, "find_spec", lambda _: None)
    assert not trees.can_grow(1000)
