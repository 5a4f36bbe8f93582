"""Trackers: what MLflow is told, and what is said where it is not installed."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.errors import ConfigError
from pipeline.training.expert_record import picture
from pipeline.training.train import train
from pipeline.training.train_config import TrainConfig
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()


def train_with(uri: str, folder: Path) -> None:
    features = write_features(folder / "features", SCHEMA, train_rows=512)
    settings = {"epochs": 1, "batch_size": 256, "tracking": {"mlflow": uri, "experiment": "tests"}}
    train(features, small_config(), TrainConfig.model_validate(settings), folder / "run", lambda _: None)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is an extra")
def test_a_run_is_told_to_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    train_with((tmp_path / "mlruns").as_uri(), tmp_path)
    client: Any = importlib.import_module("mlflow.tracking").MlflowClient((tmp_path / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.data.params["train.batch_size"] == "256"
    assert 0.0 < run.data.metrics["valid/like/auc"] < 1.0
    assert run.info.status == "FINISHED"
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"experts"}


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(ConfigError, match=r"pip install 'moerank\[mlflow\]'"):
        train_with("http://127.0.0.1:1", tmp_path)


def test_a_heat_map_is_darker_where_the_value_is_higher() -> None:
    image = picture([[0.0, 1.0], [0.5, 0.5]], ["like", "rating"]).astype(int).sum(0)
    cells = [image[33:38, -57:-52].mean(), image[33:38, -27:-22].mean(), image[63:68, -57:-52].mean()]
    assert cells[0] > cells[2] > cells[1]
    assert np.unique(image).size > 3
