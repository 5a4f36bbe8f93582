"""Options of the training step: averages, accumulation, precision, single tables, profiling."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from contract.errors import ConfigError
from pipeline.training import training_run
from pipeline.training.checkpoint import latest, load_ranker
from pipeline.training.gradient_scale import GradientScale
from pipeline.training.precision import precision_of
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_step import TrainingStep
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
MODEL = small_config(gate={"name": "top_k", "k": 2})
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 256, "learning_rate": 0.01, "embedding_learning_rate": 0.1}
HEAD = "network.towers.towers.0.head.weight"
TABLES = "embeddings.embedding_bags."


def config(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(FAST | changes)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA, train_rows=1024)


def trained(features: Path, run_dir: Path, **changes: Any) -> dict[str, torch.Tensor]:
    train(features, MODEL, config(**changes), run_dir, lambda _: None)
    return load_ranker(run_dir, SCHEMA).state_dict()


def test_averages_are_what_is_saved_and_training_goes_on_from_the_weights(features: Path, tmp_path: Path) -> None:
    once = {"epochs": 1, "early_stopping": None}
    plain = trained(features, tmp_path / "plain", **once)
    averaged = trained(features, tmp_path / "mean", average={"name": "mean", "start": 0.5}, **once)
    assert not torch.allclose(plain[HEAD], averaged[HEAD], atol=1e-5)
    for name, tensor in plain.items():
        if name.startswith(TABLES):
            torch.testing.assert_close(averaged[name], tensor, rtol=0, atol=0)
    # Two epochs and one that is gone on with are the same: the average did not leak into the weights.
    whole = trained(features, tmp_path / "whole", average={}, schedule="constant", early_stopping=None)
    first: dict[str, Any] = {"average": {}, "schedule": "constant", "early_stopping": None}
    trained(features, tmp_path / "parts", epochs=1, **first)
    parts = trained(features, tmp_path / "parts", epochs=2, **first)
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0, atol=0, msg=name)


def test_the_mean_of_equal_batches_is_the_gradient_of_one(features: Path, tmp_path: Path) -> None:
    # Without norms and noise, two batches of half the size move the network as one does, where tables stand still.
    model = small_config(gate={"name": "softmax"}, norm="none", input_norm="none", routing_norm="none", dropout=0.0)
    still = {
        "epochs": 1,
        "embedding_learning_rate": 1e-9,
        "schedule": "constant",
        "early_stopping": None,
        "bf16": "off",
    }
    states = []
    for name, changes in {"one": {"batch_size": 256}, "two": {"batch_size": 128, "accumulate": 2}}.items():
        train(features, model, config(**still, **changes), tmp_path / name, lambda _: None)
        states.append(load_ranker(tmp_path / name, SCHEMA).state_dict())
    torch.testing.assert_close(states[0][HEAD], states[1][HEAD], rtol=0, atol=2e-4)


def test_float16_trains_under_a_factor_that_follows_overflows(features: Path, tmp_path: Path) -> None:
    result = train(features, MODEL, config(precision="fp16", epochs=4), tmp_path, lambda _: None)
    assert result["metrics"]["like"]["auc"] > 0.6
    scale = GradientScale(torch.device("cpu"))
    before = float(scale.factor)
    assert scale.follow(overflow=True)
    assert float(scale.factor) == before / 2
    for _ in range(1000):
        scale.follow(overflow=False)
    assert float(scale.factor) == before
    scale.factor.fill_(1.0)
    assert not scale.follow(overflow=True)


def test_precisions_are_chosen_by_name_and_the_older_key_still_counts() -> None:
    cpu = torch.device("cpu")
    assert precision_of(config(precision="fp64"), cpu).weights == torch.float64
    assert precision_of(config(bf16="on"), cpu).autocast == torch.bfloat16
    assert precision_of(config(bf16="off"), cpu).autocast is None
    assert precision_of(config(precision="fp16", bf16="on"), cpu).autocast == torch.float16


def test_accumulation_and_float16_need_fixed_weights_of_tasks() -> None:
    for changes in ({"accumulate": 2}, {"precision": "fp16"}):
        with pytest.raises(ValidationError, match="weighting gradnorm looks at the gradients of single batches"):
            config(weighting={"name": "gradnorm"}, **changes)


def test_a_network_of_float64_is_saved_as_float32(features: Path, tmp_path: Path) -> None:
    state = trained(features, tmp_path, precision="fp64")
    assert state[HEAD].dtype == torch.float32
    assert float(state[HEAD].abs().sum()) > 0


@pytest.mark.parametrize("optimizer", ["adagrad", "sgd"])
def test_a_table_has_its_own_rate_and_optimiser(features: Path, tmp_path: Path, optimizer: str) -> None:
    first, second = list(SCHEMA.tables())[:2]
    own = {first: {"learning_rate": 1e-12, "optimizer": optimizer}, second: {"optimizer": optimizer}}
    start = trained(features, tmp_path / "start", epochs=1, embedding_learning_rate=1e-12, learning_rate=1e-12)
    state = trained(features, tmp_path / "own", tables=own)
    moved = {name: float((state[f"{TABLES}{name}.weight"] - start[f"{TABLES}{name}.weight"]).norm()) for name in own}
    assert moved[first] < 1e-6 < moved[second]


def test_a_table_lies_where_the_recipe_says(features: Path, tmp_path: Path) -> None:
    said: list[str] = []
    first = next(iter(SCHEMA.tables()))
    for sharding in ("row_wise", "table_wise"):
        settings = config(epochs=1, tables={first: {"sharding": sharding}})
        train(features, MODEL, settings, tmp_path / sharding, said.append)
        line = next(line for line in said if line.startswith(f"table {first}:") and sharding.replace("_", "-") in line)
        assert line.endswith("as train.tables says")


def test_an_unknown_table_is_refused_with_those_there_are(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.tables names 'nobody'; the tables are: "):
        train(features, MODEL, config(tables={"nobody": {}}), tmp_path, lambda _: None)


def test_a_profile_of_some_steps_lies_in_the_run(features: Path, tmp_path: Path) -> None:
    train(features, MODEL, config(epochs=3, profile_steps=2), tmp_path, lambda _: None)
    trace = json.loads((tmp_path / "profile" / "trace.json").read_text())
    assert any("addmm" in event.get("name", "") for event in trace["traceEvents"])
    assert latest(tmp_path) is not None


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("setting", [{"embedding_weight_decay": 0.5}, {"tables": {"user": {"weight_decay": 0.5}}}])
def test_decay_makes_embeddings_smaller(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], *, waits: bool
) -> None:
    monkeypatch.setattr(training_run, "TrainingStep", partial(TrainingStep, waits=waits))
    table = f"{TABLES}user.weight"
    plain = trained(features, tmp_path / "none", epochs=1)[table].norm()
    assert trained(features, tmp_path / "decay", epochs=1, **setting)[table].norm() < 0.95 * plain
