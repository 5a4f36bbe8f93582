"""Steps captured as one CUDA graph: on a processor the same step on the same places, on a card the graph itself."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.schema import Schema
from pipeline.training import step_graph, training_run
from pipeline.training.checkpoint import load_ranker
from pipeline.training.late_check import Moved
from pipeline.training.step_graph import WARM, StepGraph
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from pipeline.training.training_step import TrainingStep
from tests.models.small import lean_schema, small_config, small_schema
from tests.pipeline.tiny_features import write_features
from tests.pipeline.training.test_train import interrupt_at_first_epoch

SCHEMA = lean_schema()
MODEL = small_config(gate={"name": "softmax"}, dropout=0.1, id_dropout=0.1)
FAST: dict[str, Any] = {"epochs": 3, "batch_size": 64, "learning_rate": 0.01, "embedding_learning_rate": 0.1}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # 15 batches and a short one.
    return write_features(tmp_path_factory.mktemp("features"), SCHEMA, train_rows=1000)


def silent(text: str) -> None:
    del text


def learned(
    features: Path, run: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], **step: Any
) -> dict[str, Tensor]:
    """The weights of a training whose steps are built so."""
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "TrainingStep", partial(TrainingStep, waits=False, **step))
        train(features, MODEL, TrainConfig.model_validate(FAST | settings), run, silent)
    return load_ranker(run, SCHEMA).state_dict()


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"schedule": "cosine", "gradient_clip": 1.0, "embedding_weight_decay": 0.01},
    {"average": {"name": "ema", "start": 0.4}, "on_bad_batch": "skip"},
    {"tables": {"item": {"optimizer": "adagrad"}, "user": {"optimizer": "sgd", "learning_rate": 0.03}}},
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_rates_on_the_device_teach_the_same_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    # Not for long: Adagrad's first step is as large for a gradient of 1e-9 as for one of 1, and none for 0.
    features = write_features(tmp_path / "features", SCHEMA, train_rows=600)
    expected = learned(features, tmp_path / "one", monkeypatch, settings | {"epochs": 1}, captures=False)
    found = learned(features, tmp_path / "graph", monkeypatch, settings | {"epochs": 1}, captures=True)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("broken", [{}, {"price": float("nan")}])
def test_a_step_on_fixed_places_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], broken: dict[str, float]
) -> None:
    """Batches that are not finite among them, which are to leave no trace."""
    features = write_features(tmp_path / "features", SCHEMA, train_rows=1000, broken=broken, broken_rows=6)
    settings = settings | {"on_bad_batch": "skip"}
    found = learned(features, tmp_path / "graph", monkeypatch, settings, captures=True)
    monkeypatch.setattr(step_graph, "WARM", 10**6)
    expected = learned(features, tmp_path / "one", monkeypatch, settings, captures=True)
    for name, tensor in found.items():
        assert tensor.isfinite().all()
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize(
    ("schema", "model", "settings", "reason"),
    [
        (SCHEMA, {}, {}, None),
        (small_schema(), {}, {}, "lists are of another length in each batch"),
        (SCHEMA, {"table_dims": {"item": 4}}, {}, "tables are of several widths, or lie in the host's memory"),
        (
            lean_schema().model_copy(update={"user_key": "user"}),
            {},
            {"within_user": {"like": {"name": "pairwise"}}},
            "rows of one user are compared",
        ),
        (SCHEMA, {}, {"accumulate": 2}, "gradients of several batches are added up, by train.accumulate"),
        (SCHEMA, {}, {"weighting": {"name": "pcgrad"}}, "train.weighting pcgrad looks at single batches"),
        (SCHEMA, {}, {"precision": "fp16"}, "each step of float16 waits to know whether it overflowed"),
        (SCHEMA, {"gate": {"name": "dense_to_sparse", "switch_step": 9}}, {}, "a gate changes with the step"),
        (
            SCHEMA,
            {"sparse_training": "on", "norm": "layer"},
            {},
            "the host asks which rows selected an expert, by model.sparse_training: on",
        ),
        (SCHEMA, {"gate": {"name": "comet", "k": 2, "permutation": {"steps": 9}}}, {}, "a gate changes with the step"),
    ],
)
def test_what_stands_against_a_graph_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schema: Schema,
    model: dict[str, Any],
    settings: dict[str, Any],
    reason: str | None,
) -> None:
    seen: list[str | None] = []

    def noted(*args: Any, **kwargs: Any) -> TrainingStep:
        step = TrainingStep(*args, waits=False, captures=True, **kwargs)
        seen.append(step.obstacle)
        assert (step.graph is None) == (step.obstacle is not None)
        return step

    monkeypatch.setattr(training_run, "TrainingStep", noted)
    config = TrainConfig.model_validate(FAST | {"epochs": 1, "batch_size": 256} | settings)
    train(write_features(tmp_path / "features", schema), small_config(**model), config, tmp_path / "run", silent)
    assert seen == [reason]


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*B200 optimization:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("capture", ["auto", "off"])
def test_on_a_card_an_interrupted_run_goes_on_to_the_same_weights(features: Path, tmp_path: Path, capture: str) -> None:
    config = TrainConfig.model_validate(FAST | {"capture": capture, "average": {"name": "ema"}})
    train(features, MODEL, config, tmp_path / "whole", silent)
    with pytest.raises(KeyboardInterrupt):
        train(features, MODEL, config, tmp_path / "parts", interrupt_at_first_epoch)
    train(features, MODEL, config, tmp_path / "parts", silent)
    expected = load_ranker(tmp_path / "whole", SCHEMA).state_dict()
    for name, tensor in load_ranker(tmp_path / "parts", SCHEMA).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*B200 optimization:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("settings", [{}, {"average": {"name": "ema", "start": 0.4}, "on_bad_batch": "skip"}])
def test_on_a_card_a_graph_learns_the_same_as_its_kernels_one_by_one(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    replays = 0
    captured = StepGraph._captured

    def counted(self: StepGraph, move: Any) -> Any:
        replay = captured(self, move)

        def count() -> Moved:
            nonlocal replays
            replays += 1
            return replay()

        return count

    monkeypatch.setattr(StepGraph, "_captured", counted)
    found = learned(features, tmp_path / "graph", monkeypatch, settings)
    assert replays == 3 * 15 - WARM - (WARM if settings else 0)
    monkeypatch.setattr(step_graph, "WARM", 10**6)
    expected = learned(features, tmp_path / "one", monkeypatch, settings)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0, msg=name)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*B200 optimization:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_card_a_compiled_network_is_captured(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learned(features, tmp_path / "one", monkeypatch, {"capture": "off"})
    found = learned(features, tmp_path / "graph", monkeypatch, {"compile": "on"})
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0.05, atol=0.02, msg=name)
