"""Paired comparison of bundles and prediction files."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError, DataError
from features.source.parquet_files import write_table
from pipeline.evaluation.comparing.compare import compare, compare_models
from pipeline.evaluation.comparing.paired_test import adjusted_together, compare_predictions, measure_difference
from pipeline.evaluation.comparing.slice_differences import widened
from pipeline.evaluation.evaluate import EvaluateConfig
from pipeline.evaluation.predictions import Predictions
from tests.pipeline.conftest import Judged

QUICK = EvaluateConfig(replicates=100)


def test_the_better_of_two_bundles_is_named(judged: Judged, tmp_path: Path) -> None:
    found = compare(judged.worse, judged.bundle, judged.test, tmp_path, config=QUICK)
    for task, metric in (("like", "auc"), ("rating", "rmse"), ("like", "gauc"), ("like", "log_loss")):
        assert found.tasks[task][metric].better == "b", metric
        assert found.tasks[task][metric].p < 0.05
    assert found.tasks["like"]["auc"].difference > 0 > found.tasks["rating"]["rmse"].difference
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert written["tasks"]["like"]["auc"]["b"] == judged.evaluation.tasks["like"]["auc"].value


def test_equal_models_are_told_apart_in_at_most_one_of_twenty_comparisons() -> None:
    # Two tasks with all their metrics each; before the p-values were adjusted, 28 % of such pairs had a "winner".
    told_apart = 0
    for seed in range(60):
        first, second = (_noisy(seed, model) for model in (1, 2))
        tasks, _ = compare_predictions(first, second, EvaluateConfig(replicates=100))
        told_apart += any(each.better != "neither" for metrics in tasks.values() for each in metrics.values())
    assert told_apart <= 7


def test_what_these_rows_could_have_shown_is_said() -> None:
    tasks, _ = compare_predictions(_noisy(0, 1), _noisy(0, 2), EvaluateConfig(replicates=100))
    auc = tasks["like"]["auc"]
    assert auc.headline
    assert auc.smallest > 2.8 * (auc.high - auc.low) / (2 * 1.96) * 0.8
    assert auc.verdict() == f"no clear difference; the smallest that these rows could have shown is {auc.smallest:.4f}"


def _noisy(seed: int, model: int) -> Predictions:
    """Two tasks of 100 users; models of different numbers differ by independent noise of the same size."""
    rng, own = np.random.default_rng(seed), np.random.default_rng([seed, model])
    user = np.repeat(np.arange(100, dtype=np.uint64), 5)
    logit = rng.normal(size=(500, 2)) + rng.normal(size=(100, 2))[user.astype(int)]
    scores = 1.0 / (1.0 + np.exp(-(logit + own.normal(scale=0.5, size=logit.shape))))
    labels = (rng.random((500, 2)) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
    ones, zeros = np.ones(labels.shape, np.float32), np.zeros(500, np.int64)
    item = np.arange(500, dtype=np.uint64)
    return Predictions(
        {"like": "binary", "share": "binary"}, labels, ones, scores.astype(np.float32), user, item, zeros
    )


def test_a_model_does_not_differ_from_itself(judged: Judged) -> None:
    found = compare(judged.bundle, judged.out / "predictions.parquet", judged.test, config=QUICK)
    for scores in found.tasks.values():
        for difference in scores.values():
            assert (difference.difference, difference.low, difference.high) == (0.0, 0.0, 0.0)
            assert (difference.p, difference.better) == (1.0, "neither")


def test_prediction_files_are_aligned_whatever_their_order(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    write_table(table.take(pc.sort_indices(table["prediction__like"])), tmp_path / "sorted.parquet")
    found = compare(judged.out / "predictions.parquet", tmp_path / "sorted.parquet", config=QUICK)
    assert found.tasks["like"]["auc"].difference == 0.0


def test_files_about_other_rows_are_refused(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    write_table(table.slice(1), tmp_path / "fewer.parquet")
    with pytest.raises(DataError, match="one has 2000, the other 1999"):
        compare(judged.out / "predictions.parquet", tmp_path / "fewer.parquet", config=QUICK)
    other = pc.subtract(1.0, table["label__like"]).cast("float")
    write_table(table.set_column(table.column_names.index("label__like"), "label__like", other), tmp_path / "o.parquet")
    with pytest.raises(DataError, match="task 'like' has other labels or weights in 2000 of 2000 rows"):
        compare(judged.out / "predictions.parquet", tmp_path / "o.parquet", config=QUICK)


def test_rows_that_two_recipes_weigh_otherwise_are_refused_with_the_remedy(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    place = table.column_names.index("weight__rating")
    heavy = pc.multiply(table["weight__rating"], 3.0).cast("float")
    write_table(table.set_column(place, "weight__rating", heavy), tmp_path / "heavy.parquet")
    with pytest.raises(DataError, match=r"'rating'.* two recipes define it differently .*--columns label\.rating=y"):
        compare(judged.out / "predictions.parquet", tmp_path / "heavy.parquet", config=QUICK)


def test_rows_that_only_their_order_matches_are_refused_where_labels_differ(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    table = table.select([name for name in table.column_names if name not in {"__user", "__item", "__time"}])
    write_table(table.replace_schema_metadata(), tmp_path / "a.parquet")
    write_table(table.take(pc.sort_indices(table["prediction__like"])), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="which nothing but their order matches; write a column that tells rows apart"):
        compare(tmp_path / "a.parquet", tmp_path / "b.parquet", config=QUICK)


def test_files_without_a_common_task_are_refused(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    write_table(table.rename_columns([n.replace("like", "click") for n in table.column_names]), tmp_path / "c.parquet")
    one = table.select([n for n in table.column_names if "rating" not in n])
    write_table(one, tmp_path / "l.parquet")
    click = pq.read_table(tmp_path / "c.parquet")
    write_table(click.select([n for n in click.column_names if "rating" not in n]), tmp_path / "c1.parquet")
    with pytest.raises(DataError, match="one has like, the other click"):
        compare(tmp_path / "l.parquet", tmp_path / "c1.parquet", config=QUICK)


def test_a_bundle_needs_data(judged: Judged) -> None:
    with pytest.raises(ConfigError, match="--data must name"):
        compare(judged.bundle, judged.worse)


def test_a_file_without_predictions_is_refused(judged: Judged) -> None:
    with pytest.raises(DataError, match="has no column 'prediction__TASK'"):
        compare(judged.test, judged.test)


def test_more_than_two_models_are_held_against_the_first_and_adjusted_together(judged: Judged, tmp_path: Path) -> None:
    scores = judged.out / "predictions.parquet"
    found = compare_models([judged.bundle, judged.worse, scores], judged.test, tmp_path, config=QUICK)
    worse, same = found.pairs
    alone = compare(judged.bundle, judged.worse, judged.test, config=QUICK)
    auc = worse.tasks["like"]["auc"]
    assert auc.better == "a"
    assert auc.p == alone.tasks["like"]["auc"].p
    assert auc.p_adjusted >= alone.tasks["like"]["auc"].p_adjusted
    assert auc.smallest > alone.tasks["like"]["auc"].smallest
    assert same.tasks["like"]["auc"].difference == 0.0
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert [pair["b"] for pair in written["pairs"]] == [str(judged.worse), str(scores)]


def test_equal_models_among_several_are_told_apart_in_at_most_one_of_twenty_comparisons() -> None:
    told_apart = 0
    for seed in range(30):
        first, second, third = (_noisy(seed, model) for model in (1, 2, 3))
        pairs = [measure_difference(first, each, EvaluateConfig(replicates=100))[0] for each in (second, third)]
        every = {(number, *key): each for number, pair in enumerate(pairs) for key, each in pair.items()}
        told_apart += any(each.better != "neither" for each in adjusted_together(every).values())
    assert told_apart <= 4


def test_slices_have_intervals_that_hold_for_all_of_them(judged: Judged) -> None:
    sliced = QUICK.model_copy(update={"slice_by": ("tab",), "slice_replicates": 50})
    found = compare(judged.bundle, judged.worse, judged.test, config=sliced)
    assert {each.slice for each in found.slices} == {"tab"}
    (alone,) = widened(found.slices[:1], 1)
    wider = widened([alone], len(found.slices))[0]
    assert wider.high - wider.low > alone.high - alone.low
    assert all(each.low < each.difference < each.high for each in found.slices)


def test_slices_are_of_the_rows_of_their_value_whatever_the_order_of_the_files(judged: Judged, tmp_path: Path) -> None:
    table = pq.read_table(judged.out / "predictions.parquet")
    half = pc.greater(table["prediction__like"], 0.5).cast("int8")
    with_half = table.append_column("half", half)
    write_table(with_half.take(pc.sort_indices(table["prediction__rating"])), tmp_path / "sorted.parquet")
    sliced = QUICK.model_copy(update={"slice_by": ("half",), "slice_replicates": 50})
    found = compare(tmp_path / "sorted.parquet", judged.out / "predictions.parquet", config=sliced)
    rows = {each.value: each.rows for each in found.slices if each.slice == "half" and each.task == "rating"}
    labelled = table.filter(pc.greater(table["weight__rating"], 0))
    counts = pc.value_counts(pc.greater(labelled["prediction__like"], 0.5).cast("int8"))
    assert rows == {str(each["values"].as_py()): each["counts"].as_py() for each in counts}
    assert all(each.difference == 0.0 for each in found.slices)


def test_rows_that_are_paired_by_chance_make_no_differences_on_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    table = pa.table({
        "user": rng.integers(0, 30, 600), "kind": rng.integers(0, 2, 600), "impression": np.arange(600),
        "y": labels, "score": 0.3 * labels + 0.7 * rng.random(600),
    })  # fmt: skip
    write_table(table, tmp_path / "a.parquet")
    write_table(table.take(rng.permutation(600)), tmp_path / "b.parquet")
    columns = {"user": "user", "label.y": "y", "prediction.y": "score"}
    sliced = QUICK.model_copy(update={"slice_by": ("kind",), "slice_replicates": 50})
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    found = compare(a, b, config=sliced, columns=columns)
    assert not found.slices
    assert any(note.startswith("no differences by kind: ") and "--columns key=" in note for note in found.notes)
    for told in (
        compare(a, b, config=sliced, columns={**columns, "key": "impression"}),
        compare(a, a, config=sliced, columns=columns),
    ):
        assert [each.difference for each in told.slices] == [0.0, 0.0]
        assert told.notes == ()


def test_scores_that_are_no_probabilities_are_compared_with_some_that_are() -> None:
    first = _noisy(0, 1)
    raw = first.with_scores(first.scores * 8.0 - 4.0)
    for pair in ((first, raw), (raw, first)):
        tasks, undefined = compare_predictions(*pair, QUICK)
        assert tasks["like"]["auc"].difference == 0.0
        assert "log_loss" not in tasks["like"]
        assert "probabilities: they lie from" in undefined["like"]["log_loss"]


def test_a_key_that_repeats_does_not_lend_one_file_the_users_of_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    table = pa.table({
        "__user": rng.integers(1, 30, 600).astype(np.uint64), "request": rng.integers(0, 100, 600),
        "y": labels, "score": 0.3 * labels + 0.7 * rng.random(600),
    })  # fmt: skip
    shuffled = table.take(rng.permutation(600))
    for name, each in (("a", table), ("b", shuffled), ("c", shuffled.drop_columns("__user"))):
        write_table(each, tmp_path / f"{name}.parquet")
    columns = {"key": "request", "label.y": "y", "prediction.y": "score"}
    found = compare(tmp_path / "a.parquet", tmp_path / "b.parquet", config=QUICK, columns=columns)
    assert found.tasks["y"]["gauc"].difference == 0.0
    with pytest.raises(DataError, match="the key does not tell rows apart: 600 rows have"):
        compare(tmp_path / "a.parquet", tmp_path / "c.parquet", config=QUICK, columns=columns)
