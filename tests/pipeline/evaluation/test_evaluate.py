"""Evaluation of a real, tiny, served graph."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedWith
from contract.errors import ConfigError, DataError, IntegrityError, SchemaMismatchError
from features.source.parquet_files import write_table
from pipeline.evaluation import metrics
from pipeline.evaluation.concordance import xauc as xauc_of
from pipeline.evaluation.curves import Curves
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from pipeline.evaluation.list_metrics import ndcg
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.evaluation.quality_gate import QualityConfig, examine
from pipeline.evaluation.result import Evaluation
from pipeline.report import write_report
from tests.pipeline.conftest import Judged

QUICK = EvaluateConfig(replicates=50, slice_replicates=50)
BINARY = {"auc", "pr_auc", "log_loss", "ne", "calibration", "ece", "gauc", "ndcg@10"}
MORE = {"lift", "mrr@10", "map@10", "precision@10", "recall@10"}
REGRESSION = {"rmse", "mae", "r2", "calibration", "xauc", "gxauc"}


def test_the_json_has_the_agreed_shape(judged: Judged) -> None:
    found = json.loads((judged.out / "evaluation.json").read_text())
    assert {"model", "data", "rows", "tasks", "baselines", "slices", "experts"} <= found.keys()
    assert found["model"] == "tiny/1"
    assert found["rows"] == 2000
    assert found["tasks"].keys() == {"like", "rating"}
    assert found["tasks"]["like"].keys() == BINARY | MORE
    assert found["tasks"]["rating"].keys() == REGRESSION
    assert found["baselines"].keys() == {"constant", "popularity", "trees"}
    for tasks in (found["tasks"], *found["baselines"].values()):
        for scores in tasks.values():
            for estimate in scores.values():
                assert estimate.keys() == {"value", "low", "high", "n", "positives"}
                assert estimate["low"] <= estimate["high"]
    assert found["tasks"]["like"]["auc"]["n"] == 2000
    assert found["tasks"]["rating"]["rmse"]["positives"] is None
    assert found["method"]["level"] == 0.95


def test_values_are_those_of_the_plain_metrics(judged: Judged) -> None:
    kept = load_predictions(judged.out / "predictions.parquet")
    rows = kept.by_task(kept.users())
    like, rating, scores = rows["like"], rows["rating"], judged.evaluation.tasks
    users = like.users.group
    expected = {
        "auc": metrics.auc(like.labels, like.scores),
        "pr_auc": metrics.pr_auc(like.labels, like.scores),
        "log_loss": metrics.log_loss(like.labels, like.scores),
        "ne": metrics.ne(like.labels, like.scores),
        "calibration": metrics.calibration(like.labels, like.scores),
        "gauc": metrics.gauc(like.labels, like.scores, users),
        "ndcg@10": ndcg(like.labels, like.scores, users, 10),
    }
    assert {name: scores["like"][name].value for name in expected} == pytest.approx(expected, rel=1e-6)
    # Without the bias of the plain form.
    assert scores["like"]["ece"].value <= metrics.ece(like.labels, like.scores)
    expected = {
        "rmse": metrics.rmse(rating.labels, rating.scores),
        "mae": metrics.mae(rating.labels, rating.scores),
        "calibration": metrics.calibration(rating.labels, rating.scores),
        "xauc": xauc_of(rating.labels, rating.scores),
    }
    assert {name: scores["rating"][name].value for name in expected} == pytest.approx(expected, rel=1e-6)
    error = rating.scores.astype(np.float64) - rating.labels
    assert scores["rating"]["r2"].value == pytest.approx(1.0 - np.var(error) / np.var(rating.labels), abs=1e-3)


def test_rows_to_which_a_task_does_not_apply_are_left_out(judged: Judged) -> None:
    weights = pq.read_table(judged.test, columns=["weight__rating"])["weight__rating"].to_numpy()
    assert judged.evaluation.tasks["rating"]["rmse"].n == int((weights > 0).sum()) < 2000


def test_the_model_that_made_the_labels_beats_both_baselines(judged: Judged) -> None:
    tasks, baselines = judged.evaluation.tasks, judged.evaluation.baselines
    assert baselines["constant"]["like"]["auc"].value == 0.5
    assert baselines["constant"]["like"]["auc"].low == baselines["constant"]["like"]["auc"].high == 0.5
    assert tasks["like"]["auc"].low > baselines["popularity"]["like"]["auc"].high
    assert tasks["rating"]["rmse"].high < baselines["popularity"]["rating"]["rmse"].low
    assert tasks["rating"]["rmse"].value == pytest.approx(0.3, abs=0.02)
    assert baselines["popularity"]["rating"]["rmse"].value < baselines["constant"]["rating"]["rmse"].value


def test_slices_part_the_rows(judged: Judged) -> None:
    slices = judged.evaluation.slices
    assert slices.keys() == {"user", "user_training_rows", "item", "item_training_rows", "tab"}
    assert slices["user"].keys() == {"known", "new"}
    assert slices["item"].keys() == {"known"}
    assert slices["tab"].keys() == {"unknown", "home", "search"}
    for values in slices.values():
        assert sum(part.rows for part in values.values()) == 2000
    assert slices["user"]["new"].tasks["like"]["auc"].n == slices["user"]["new"].rows


def test_curves_end_in_the_corners_and_cover_all_rows(judged: Judged) -> None:
    curves = Curves.load(judged.out).tasks
    assert curves["like"].roc[0] == (0.0, 0.0)
    assert curves["like"].roc[-1] == (1.0, 1.0)
    area = np.trapezoid([y for _, y in curves["like"].roc], [x for x, _ in curves["like"].roc])
    assert area == pytest.approx(judged.evaluation.tasks["like"]["auc"].value, abs=0.002)
    assert sum(part.rows for part in curves["like"].bins) == 2000
    assert curves["rating"].roc == ()
    assert all(part.low <= part.actual <= part.high for part in curves["like"].bins)


def test_a_second_evaluation_is_the_same_to_the_last_digit(judged: Judged, tmp_path: Path) -> None:
    config = EvaluateConfig(replicates=200, slice_replicates=50, slice_by=("tab",))
    again = evaluate(judged.bundle, judged.test, judged.train, tmp_path, config=config)
    assert again == judged.evaluation == Evaluation.load(tmp_path)


def test_without_training_rows_there_is_no_popularity(judged: Judged, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(
        judged.bundle,
        judged.test,
        None,
        tmp_path,
        config=QUICK,
        experts={"union": 0.25},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.baselines.keys() == {"constant"}
    assert found.slices == {}
    assert found.experts["union"] == 0.25
    assert seen[-1] == (2000, 2000)


def test_a_label_of_one_class_has_no_auc_and_the_report_says_why(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.test)
    zeros = pa.array(np.zeros(table.num_rows, np.float32))
    write_table(
        table.set_column(table.column_names.index("label__like"), "label__like", zeros), tmp_path / "one.parquet"
    )
    found = evaluate(judged.bundle, tmp_path / "one.parquet", judged.train, tmp_path / "out", config=QUICK)
    assert "auc" not in found.tasks["like"]
    assert found.undefined["like"]["auc"] == "none of the 2000 rows is positive"
    assert found.tasks["rating"]["rmse"].n > 0
    assert found.headline()["like"] == {}
    page = write_report(tmp_path / "out").read_text("utf-8")
    assert "auc is not defined because none of the 2000 rows is positive" in page
    refused = examine(found, QualityConfig(rules=("like.auc >= 0.5",), beat=("constant",)))
    assert [finding.passed for finding in refused] == [True, False, True]
    assert (
        refused[1].text == "like.auc is not defined because none of the 2000 rows is positive, but >= 0.5 is asked for"
    )


def test_an_empty_table_is_refused(judged: Judged, tmp_path: Path) -> None:
    write_table(pq.read_table(judged.test).slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="has no rows to evaluate on"):
        evaluate(judged.bundle, tmp_path / "none.parquet", judged.train, tmp_path / "out", config=QUICK)


def test_rows_of_a_build_with_other_features_are_refused_as_such(judged: Judged, tmp_path: Path) -> None:
    rows = pq.read_table(judged.test).drop_columns(["tab"])
    others = EncodedWith(schema_fingerprint="of another build", encoding="").metadata()
    write_table(rows.replace_schema_metadata(others), tmp_path / "others.parquet")
    with pytest.raises(SchemaMismatchError, match="use rows and a model of one features build"):
        evaluate(judged.bundle, tmp_path / "others.parquet", None, tmp_path / "out", config=QUICK)


def test_training_rows_without_a_label_are_refused(judged: Judged, tmp_path: Path) -> None:
    write_table(pq.read_table(judged.train).drop_columns(["label__like"]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="lacks column 'label__like'"):
        evaluate(judged.bundle, judged.test, tmp_path / "train.parquet", tmp_path / "out", config=QUICK)


def test_a_slice_that_is_no_feature_is_refused(judged: Judged, tmp_path: Path) -> None:
    config = EvaluateConfig(slice_by=("prize",))
    with pytest.raises(ConfigError, match=r"cannot slice by 'prize': there are .*user_id, tab.*hour"):
        evaluate(judged.bundle, judged.test, judged.train, tmp_path / "out", config=config)


def test_lists_by_what_is_no_feature_name_the_id_features_alone(judged: Judged, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"lists_by": "nope"})
    with pytest.raises(ConfigError, match="neither user nor item; there are the id features ") as refused:
        evaluate(judged.bundle, judged.test, None, tmp_path, config=config)
    assert "__" not in str(refused.value)


def test_a_damaged_bundle_is_not_evaluated(judged: Judged, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in judged.bundle.rglob("*"):
        target = copy / path.relative_to(judged.bundle)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        evaluate(copy, judged.test, judged.train, tmp_path / "out", config=QUICK)
