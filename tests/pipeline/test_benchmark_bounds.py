"""The comparison with LightGBM: it reads the very columns that models train on, and judges both alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.digests import digest_of
from contract.hashing import hash_array
from features.table_config import EventsConfig
from models.model_config import ModelConfig
from pipeline.training.train_config import TrainConfig
from tests.models.small import inputs, small_schema
from tests.pipeline.tiny_features import write_features

pytest.importorskip("lightgbm")

from benchmarks import trees
from benchmarks.bounds import BOUNDS, against, better_trees, cases
from benchmarks.ece_floor import drawn_eces
from benchmarks.judged_runs import Answers, Judged, known_run, recipe_of
from benchmarks.tree_scores import scored_log
from benchmarks.tree_teacher import FOLDS, answers_of_folds

SCHEMA = small_schema()


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


def test_ids_are_categories_and_short_lists_are_marks(features: Path) -> None:
    rows = trees.read_rows(features, SCHEMA, "train")
    given = inputs(SCHEMA, 2048, 2048, seed=0)
    ids = trees.categorical(SCHEMA)
    np.testing.assert_array_equal(rows.inputs[:, ids[:2]], given.request.ids)
    np.testing.assert_array_equal(rows.inputs[:, ids[2:]], given.candidate.ids)
    history = rows.inputs[:, 3 : 3 + 50]
    lengths = given.request.list_lengths[0]
    first = given.request.list_values[: lengths[0]]
    assert set(np.flatnonzero(history[0])) == set(first.tolist())


def test_trees_learn_and_are_judged_as_models_are(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 60)
    rows = {split: trees.read_rows(features, SCHEMA, split) for split in ("train", "valid", "test")}
    answers, cpu = trees.predictions(SCHEMA, rows["train"], rows["valid"], rows["test"])
    figures = Answers(SCHEMA, answers, rows["test"].labels, rows["test"].weights).figures()
    assert figures["like auc"] > 0.8
    assert set(figures) == {"like auc", "like ece", "rating rmse"}
    table: list[Any] = list(cases("tiny", [Judged(figures, cpu)] * 2, Judged(figures, cpu)))
    assert table[0].case == "tiny like auc"
    assert [case.value for case in table if "LightGBM's" in case.case and "CPU" not in case.case] == [0.0] * 3


def test_a_teachers_answers_to_a_fold_do_not_know_its_labels(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 5)
    train, valid = (trees.read_rows(features, SCHEMA, split) for split in ("train", "valid"))
    before, of_valid = answers_of_folds(SCHEMA, train, valid)
    first = np.random.default_rng(0).integers(0, FOLDS, len(train.labels)) == 0
    turned = train.labels.copy()
    turned[first] = 1.0 - turned[first]
    after, _ = answers_of_folds(SCHEMA, trees.Rows(train.inputs, turned, train.weights), valid)
    np.testing.assert_array_equal(after[first], before[first])
    assert not np.array_equal(after[~first], before[~first])
    assert of_valid.shape == valid.labels.shape


def test_a_logs_rows_get_their_own_scores_and_others_none(tmp_path: Path) -> None:
    day = tmp_path / "log" / "date=2022-05-01"
    day.mkdir(parents=True)
    user, item = pa.array([7, 7, 8]), pa.array([1, 2, 1])
    time = pa.array([1_000, 2_000, 3_000], pa.timestamp("ms", "UTC"))
    pq.write_table(pa.table({"user": user, "item": item, "time": time}), day / "part.parquet")
    known = pa.array([2, 0])
    answers = pa.table(
        {
            USER_HASH: hash_array(user.take(known)),
            ITEM_HASH: hash_array(item.take(known)),
            TIME: time.take(known).cast(pa.int64()),
            "prediction__like": [0.25, 0.75],
        }
    )
    events = EventsConfig(path=str(tmp_path / "log"), user="user", item="item", time="time")
    scored = scored_log(events, answers, {"trees_like": "prediction__like"})
    assert scored["trees_like"].to_pylist() == [0.75, None, 0.25]
    assert scored["date"][0].as_py() == "2022-05-01"


def test_exact_answers_have_the_ece_of_chance_alone() -> None:
    scores = np.full(20_000, 0.5)
    # The mean distance of a mean of 1,000 coins from 1/2: sqrt(2 / pi) of its spread.
    expected = (2 / np.pi) ** 0.5 * 0.5 / 1_000**0.5
    assert drawn_eces(scores + np.linspace(0, 1e-9, 20_000), 50).mean() == pytest.approx(expected, rel=0.1)


def test_the_better_of_two_boosters_counts_in_every_figure() -> None:
    one, other = Judged({"like auc": 0.7, "rating rmse": 1.0}, 9.0), Judged({"like auc": 0.6, "rating rmse": 0.9}, 5.0)
    assert better_trees([one, other]) == Judged({"like auc": 0.7, "rating rmse": 0.9}, 5.0)


def test_differences_are_tested_by_seed_and_adjusted_by_holm() -> None:
    ours = {"like auc": [0.71, 0.72, 0.73], "rating rmse": [0.9, 1.0, 1.1]}
    lines = against(ours, {"like auc": [0.70, 0.70, 0.70], "rating rmse": [1.0, 1.0, 1.0]}).splitlines()
    alone = stats.ttest_1samp([0.01, 0.02, 0.03], 0.0).pvalue
    assert lines[2].endswith(f"| {2 * alone:.3f} |")
    assert lines[3].endswith("| 1.000 |")


def test_a_run_is_found_again_when_a_setting_has_been_added_since(tmp_path: Path) -> None:
    settings = [part.model_dump(mode="json") for part in (ModelConfig(), TrainConfig())]
    of_rows = ("features", {"train": 9}, "test")
    before = [{name: value for name, value in settings[0].items() if name != "monotone"}, settings[1]]
    figures = {"figures": {"like auc": 0.7}, "cpu": 1.0, "union": 0.5}
    entry = {"key": digest_of(before, *of_rows), "settings": before, **figures}
    ledger = tmp_path / "judged.jsonl"
    ledger.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    assert known_run(ledger, settings, of_rows) == Judged({"like auc": 0.7}, 1.0, 0.5)
    assert known_run(ledger, settings, ("other features", {"train": 9}, "test")) is None
    other = [settings[0] | {"monotone": {"price": "increasing"}}, settings[1]]
    assert known_run(ledger, other, of_rows) is None


def test_recent_rates_stand_beside_those_of_all_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUAIRAND_DIR", "kuairand")
    event, recent = (recipe_of(f"kuairand_{form}", 3, []) for form in ("event", "recent"))
    of_all_time = {each.by for each in event.data.aggregates}
    windows = {each.by: each.windows for each in recent.data.aggregates}
    assert of_all_time < set(windows)
    assert windows["user_id",] == ("1h", "1d", "all")
    assert all(windows[by][-1] == "all" for by in of_all_time)
    assert {each.as_of for each in recent.data.aggregates} == {"event"}
    assert recent.model == event.model
    assert (recent.train.seed, recent.train.early_stopping.metric) == (3, "is_click")  # type: ignore[union-attr]
    assert BOUNDS["kuairand_recent watch rmse"] == BOUNDS["kuairand watch rmse"]
