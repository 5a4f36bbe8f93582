"""Training: it learns, resumes to the same numbers, stops early and on request, and refuses broken losses."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from contract.errors import ConfigError, DataError, IntegrityError, SchemaMismatchError, TrainingError
from features.batches import BatchReader
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.training.checkpoint import best, latest, load_ranker, read_meta
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.validation import task_metrics
from tests.models.small import TASKS, small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
MODEL = small_config(gate={"name": "top_k", "k": 2})
FAST: dict[str, Any] = {"epochs": 3, "batch_size": 256, "learning_rate": 0.01, "embedding_learning_rate": 0.1}


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(FAST | changes)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA)


def silent(text: str) -> None:
    del text


def interrupt_at_first_epoch(text: str) -> None:
    if text.startswith("epoch 1"):
        signal.raise_signal(signal.SIGINT)


def metrics_of(ranker: Ranker, features: Path) -> dict[str, dict[str, float]]:
    batch = next(BatchReader(features / "valid", SCHEMA, 10_000).epoch())
    with torch.no_grad():
        logits = ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT
        scores = ranker.predictions(logits).numpy()
    return {
        task.name: task_metrics(task, scores[:, t], batch.labels[:, t], batch.weights[:, t])
        for t, task in enumerate(TASKS)
    }


def test_training_learns_and_the_best_epoch_is_what_loads(features: Path, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(features, MODEL, config(epochs=8), tmp_path, said.append)
    assert result["metrics"]["like"]["auc"] > 0.8
    assert result["metrics"]["rating"]["rmse"] < 0.8
    assert json.loads(json.dumps(result)) == result
    loaded = metrics_of(load_ranker(tmp_path, SCHEMA), features)
    for task, values in result["metrics"].items():
        for metric, value in values.items():
            assert loaded[task][metric] == pytest.approx(value, abs=1e-5)
    assert len([line for line in said if line.startswith("epoch")]) == 8
    assert "like/auc" in said[0]


def test_history_and_tensorboard_hold_every_epoch(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, config(epochs=2), tmp_path, silent)
    epochs = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[0]["experts"]["like"]["selected"] == 2.0
    assert 0.0 < epochs[0]["experts"]["union_over_n"] <= 1.0
    assert np.sum(epochs[1]["expert_weight"]["rating"]) == pytest.approx(1.0, abs=1e-5)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    logged = board.Scalars("valid/like/auc")
    assert [event.value for event in logged] == pytest.approx([e["valid"]["like"]["auc"] for e in epochs])
    assert 1.0 <= board.Scalars("experts/like/effective")[0].value <= 4.0
    assert {"experts/share of rows", "experts/mean weight"} <= set(board.Tags()["images"])
    picture = board.Images("experts/share of rows")[0]
    # A row of cells for the names of experts, and room for those of tasks.
    assert picture.height == 3 * 30
    assert picture.width > 4 * 30 + 20
    assert "_hparams_/session_start_info" in board.PluginTagToContent("hparams")
    assert b"train.learning_rate" in board.PluginTagToContent("hparams")["_hparams_/session_start_info"]


def test_an_interrupted_run_goes_on_to_the_same_weights(features: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    dropout = small_config(gate={"name": "dselect_k", "k": 2}, dropout=0.2, id_dropout=0.1)
    train(features, dropout, config(), whole, silent)
    with pytest.raises(KeyboardInterrupt):
        train(features, dropout, config(), broken, interrupt_at_first_epoch)
    directory = latest(broken)
    assert directory is not None
    assert read_meta(directory).progress.row == 256
    assert load_ranker(broken, SCHEMA) is not None
    train(features, dropout, config(), broken, silent)
    expected, actual = load_ranker(whole, SCHEMA).state_dict(), load_ranker(broken, SCHEMA).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)
    assert len(json.loads((broken / "history.json").read_text())["epochs"]) == 3


@pytest.mark.parametrize("name", ["uncertainty", "gradnorm", "pcgrad"])
def test_every_loss_weighting_learns_and_resumes_with_its_state(features: Path, tmp_path: Path, name: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = config(epochs=3, weighting={"name": name})
    result = train(features, MODEL, settings, whole, silent)
    assert result["metrics"]["like"]["auc"] > 0.6
    with pytest.raises(KeyboardInterrupt):
        train(features, MODEL, settings, broken, interrupt_at_first_epoch)
    train(features, MODEL, settings, broken, silent)
    expected, actual = load_ranker(whole, SCHEMA).state_dict(), load_ranker(broken, SCHEMA).state_dict()
    for key, tensor in expected.items():
        torch.testing.assert_close(actual[key], tensor, rtol=0, atol=0, msg=key)


def test_a_finished_run_is_not_trained_again(features: Path, tmp_path: Path) -> None:
    first = train(features, MODEL, config(epochs=1), tmp_path, silent)
    said: list[str] = []
    assert train(features, MODEL, config(epochs=1), tmp_path, said.append) == first
    assert not said


def test_early_stopping_ends_the_run_and_keeps_the_best_epoch(features: Path, tmp_path: Path) -> None:
    stopping = config(
        epochs=30, schedule="constant", learning_rate=0.05, early_stopping={"patience": 1, "metric": "like"}
    )
    result = train(features, MODEL, stopping, tmp_path, silent)
    epochs = json.loads((tmp_path / "history.json").read_text())["epochs"]
    aucs = [epoch["valid"]["like"]["auc"] for epoch in epochs]
    assert len(epochs) < 30
    assert result["best_epoch"] == len(epochs) - 1
    assert max(aucs) == aucs[result["best_epoch"] - 1] == result["metrics"]["like"]["auc"]
    chosen = best(tmp_path)
    assert chosen is not None
    assert read_meta(chosen).progress.epoch == result["best_epoch"]
    assert len(list((tmp_path / "checkpoint").glob("step-*"))) == 2


def test_validation_within_an_epoch_chooses_the_best_and_stops_by_any_metric(tmp_path: Path) -> None:
    schema = small_schema(user_key="user")
    features, run_dir = write_features(tmp_path / "features", schema), tmp_path / "run"
    settings = config(
        epochs=30,
        schedule="constant",
        learning_rate=0.05,
        validation={"every_rows": 512},
        early_stopping={"patience": 3, "metric": "like.log_loss"},
    )
    said: list[str] = []
    result = train(features, MODEL, settings, run_dir, said.append)
    history = json.loads((run_dir / "history.json").read_text())
    everything = sorted([*history["checks"], *history["epochs"]], key=lambda record: record["step"])
    losses = {record["step"]: record["valid"]["like"]["log_loss"] for record in everything}
    chosen = best(run_dir)
    assert chosen is not None
    progress = read_meta(chosen).progress
    assert progress.best is not None
    assert losses[progress.step] == min(losses.values()) == result["metrics"]["like"]["log_loss"]
    assert result["steps"] == everything[-1]["step"] < 30 * 8
    assert history["checks"][0]["row"] == 512
    ended = f"the best was at step {progress.best.step} of epoch {progress.best.epoch}"
    assert f"stopped early: 3 validations without a better like.log_loss; {ended}" in said
    assert said[0].startswith("epoch 1, row 512 (best): like/auc 0.")


def test_a_feature_that_is_not_finite_stops_at_its_step_with_row_and_values(tmp_path: Path) -> None:
    broken = write_features(tmp_path / "features", SCHEMA, broken={"price": float("nan")})
    with pytest.raises(TrainingError) as caught:
        train(broken, MODEL, config(), tmp_path / "run", silent)
    told = str(caught.value)
    assert re.match(r"step \d: the loss, and first of all feature price, is not finite; rows of the batch:\n", told)
    assert "user hash 1024, item hash 1024: like=" in told
    assert "encoded: price=nan, " in told
    assert latest(tmp_path / "run") is None


def test_a_batch_that_is_not_finite_can_be_skipped_and_is_counted(tmp_path: Path) -> None:
    broken = write_features(tmp_path / "features", SCHEMA, broken={"price": float("nan")})
    said: list[str] = []
    result = train(broken, MODEL, config(on_bad_batch="skip"), tmp_path / "run", said.append)
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    assert [epoch["skipped_batches"] for epoch in epochs] == [1, 1, 1]
    assert len([line for line in said if line.startswith("skipped a batch: step")]) == 3
    assert result["metrics"]["like"]["auc"] > 0.6


def test_skipped_batches_of_an_interrupted_epoch_are_counted_too(tmp_path: Path) -> None:
    broken = write_features(tmp_path / "features", SCHEMA, broken={"price": float("nan")})

    def interrupt(text: str) -> None:
        if text.startswith("skipped"):
            signal.raise_signal(signal.SIGINT)

    settings = config(epochs=1, on_bad_batch="skip")
    with pytest.raises(KeyboardInterrupt):
        train(broken, MODEL, settings, tmp_path / "run", interrupt)
    train(broken, MODEL, settings, tmp_path / "run", silent)
    epochs = json.loads((tmp_path / "run" / "history.json").read_text())["epochs"]
    assert [epoch["skipped_batches"] for epoch in epochs] == [1]


def test_rates_that_blow_up_training_stop_it_before_any_table_breaks(features: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step \d+: .* is not finite"):
        train(features, small_config(norm="none", dropout=0.0), config(learning_rate=1e30), tmp_path, silent)


def test_weights_beyond_all_bounds_are_told_at_the_next_validation(features: Path, tmp_path: Path) -> None:
    # Each batch after the first one is skipped, so that only the validation finds out.
    settings = config(learning_rate=1e30, on_bad_batch="skip")
    with pytest.raises(
        TrainingError, match=r"answers to 512 of 512 validation rows are not finite: .* lower the learn"
    ):
        train(features, small_config(norm="none", dropout=0.0), settings, tmp_path, silent)
    assert latest(tmp_path) is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"label__rating": float("inf")}, "task 'rating': the label of 1 of 2048 training rows is inf"),
        ({"label__rating": 1e30}, "task 'rating': the label of 1 of 2048 training rows is 1e"),
        ({"weight__like": -0.5}, "task 'like': the weight of 2048 training rows is negative .* such as -0.5"),
        ({"weight__like": float("nan")}, "task 'like': the weight of 2048 training rows is negative or not finite"),
        ({"weight__like": 0.0, "weight__rating": 0.0}, r"the weights of all tasks \(like, rating\) are zero"),
    ],
)
def test_labels_and_weights_are_checked_before_the_first_step(
    tmp_path: Path, broken: dict[str, float], message: str
) -> None:
    wrong = write_features(tmp_path / "features", SCHEMA, broken=broken)
    with pytest.raises(DataError, match=message):
        train(wrong, MODEL, config(), tmp_path / "run", silent)


def test_a_task_without_weight_is_left_out_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", SCHEMA, broken={"weight__rating": 0.0})
    said: list[str] = []
    result = train(features, MODEL, config(), tmp_path / "run", said.append)
    assert "task 'rating' is left out: no training row has a weight for it" in said
    assert result["metrics"]["like"]["auc"] > 0.7


@pytest.mark.parametrize("rows", [1, 2, 255, 257, 513])
def test_any_number_of_rows_trains_but_one(tmp_path: Path, rows: int) -> None:
    features = write_features(tmp_path / "features", SCHEMA, train_rows=rows)
    if rows == 1:
        with pytest.raises(DataError, match="there are 1 training rows for 1 ranks"):
            train(features, MODEL, config(epochs=1), tmp_path / "run", silent)
    else:
        assert train(features, MODEL, config(epochs=1), tmp_path / "run", silent)["steps"] == max(round(rows / 256), 1)


@pytest.mark.parametrize("seed", [20261123, 2**63 + 1, 2**64 - 1, -1])
def test_any_seed_of_64_bits_trains(features: Path, tmp_path: Path, seed: int) -> None:
    assert train(features, MODEL, config(epochs=1, seed=seed), tmp_path, silent)["steps"] == 8


def test_a_batch_is_given_over_all_ranks_or_by_rank_but_not_both() -> None:
    by_rank = TrainConfig(batch_size_per_rank=128)
    assert by_rank.sized(1000, 2) == TrainConfig(batch_size=256).sized(1000, 2)
    assert by_rank.identity(2) == TrainConfig(batch_size=256).identity(1)
    with pytest.raises(ConfigError, match="batch_size is 4, of all 3 ranks together; each needs at least 2"):
        TrainConfig(batch_size=4).sized(1000, 3)
    with pytest.raises(ValidationError, match="cannot both be given"):
        TrainConfig(batch_size=4, batch_size_per_rank=2)


def test_weights_of_unknown_tasks_and_metrics_are_refused(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task_weights names share"):
        train(features, MODEL, config(task_weights={"share": 2.0}), tmp_path, silent)
    with pytest.raises(
        ConfigError, match=r"early_stopping.metric is 'share'; before the dot may stand: mean, like, rating"
    ):
        train(features, MODEL, config(early_stopping={"metric": "share"}), tmp_path, silent)


def test_a_run_of_other_features_or_another_model_is_refused(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, config(epochs=1), tmp_path, silent)
    with pytest.raises(SchemaMismatchError):
        load_ranker(tmp_path, small_schema(user_key="user"))
    with pytest.raises(DataError, match="holds another model than is configured"):
        train(features, small_config(), config(epochs=1), tmp_path, silent)
    other = write_features(tmp_path / "other", small_schema(user_key="user"))
    with pytest.raises(SchemaMismatchError):
        train(other, MODEL, config(epochs=1), tmp_path, silent)


def test_a_changed_or_damaged_checkpoint_is_refused(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, config(epochs=1), tmp_path, silent)
    directory = latest(tmp_path)
    assert directory is not None
    for path in (next(directory.glob("*.distcp")), directory / ".metadata"):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=rf"{path.name} in .* is not what was written there"):
            load_ranker(tmp_path, SCHEMA)
        path.write_bytes(content)
    load_ranker(tmp_path, SCHEMA)


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no checkpoint in .*; train with"):
        load_ranker(tmp_path, SCHEMA)


def test_losses_by_name_and_terms_within_a_user_train(tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", small_schema(user_key="user"))
    settings = config(
        losses={"like": {"name": "focal", "gamma": 1.0}, "rating": {"name": "huber"}},
        within_user={"like": {"name": "pairwise", "weight": 0.5}},
    )
    result = train(features, MODEL, settings, tmp_path / "run", silent)
    assert result["metrics"]["like"]["auc"] > 0.7


def test_terms_within_a_user_need_to_know_the_user(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.events names no user"):
        train(features, MODEL, config(within_user={"like": {"name": "jrc"}}), tmp_path, silent)


def test_a_run_learns_from_another_runs_answers_and_refuses_one_that_is_not_there(
    features: Path, tmp_path: Path
) -> None:
    train(features, small_config(gate={"name": "softmax"}), config(), tmp_path / "teacher", silent)
    teacher = load_ranker(tmp_path / "teacher", SCHEMA)
    settings = config(teacher={"run": str(tmp_path / "teacher"), "weight": 1.0}, epochs=6)
    train(features, MODEL, settings, tmp_path / "learner", silent)
    train(features, MODEL, config(epochs=6), tmp_path / "alone", silent)
    batch = next(BatchReader(features / "test", SCHEMA, 10_000).epoch())
    gaps = {}
    for name in ("learner", "alone"):
        ranker = load_ranker(tmp_path / name, SCHEMA)
        with torch.no_grad():
            answers = [r(TensorInputs.from_numpy(batch.inputs)).logits_BT for r in (teacher, ranker)]
        gaps[name] = float((answers[0] - answers[1]).square().mean())
    assert gaps["learner"] < 0.8 * gaps["alone"]
    with pytest.raises(DataError, match="no checkpoint"):
        train(features, MODEL, config(teacher={"run": str(tmp_path / "nobody")}), tmp_path / "other", silent)
