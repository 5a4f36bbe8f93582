"""Where a run's numbers and pictures go, behind one interface: TensorBoard always, MLflow where it is asked for."""

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.tensorboard.summary import hparams

from contract.errors import ConfigError
from pipeline.training.train_config import TrackingConfig

with warnings.catch_warnings():
    # TensorBoard's import warns of its own dependencies.
    warnings.simplefilter("ignore")
    from torch.utils.tensorboard.writer import SummaryWriter

TENSORBOARD_FOLDER = "tensorboard"
_MLFLOW_RUN = "mlflow_run.txt"
Plain = str | int | float | bool


class Tracker(Protocol):
    """What a run tells while it trains."""

    def settings(self, values: Mapping[str, Plain], metrics: Mapping[str, float]) -> None:
        """Say once what the run was configured with, and by which metrics it is to be compared."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name after a step."""

    def image(self, name: str, image_3HW: NDArray[np.uint8], step: int) -> None:
        """A picture, RGB."""

    def close(self) -> None:
        """Write what is not written yet."""


class TensorBoardTracker:
    """An event file in the run's directory; the scalars of steps that will be run again are dropped."""

    def __init__(self, run_dir: Path, step: int) -> None:
        """Go on after `step` steps."""
        self._writer = SummaryWriter(str(run_dir / TENSORBOARD_FOLDER), purge_step=step + 1)

    def settings(self, values: Mapping[str, Plain], metrics: Mapping[str, float]) -> None:
        """As TensorBoard's HPARAMS page; `SummaryWriter.add_hparams` would make a second run of it."""
        events: Any = self._writer.file_writer  # torch leaves its type open
        for summary in hparams(dict(values), dict(metrics)):
            events.add_summary(summary)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, image_3HW: NDArray[np.uint8], step: int) -> None:
        """As an image."""
        self._writer.add_image(name, image_3HW, step)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class MlflowTracker:
    """A run on an MLflow server; a training that goes on after an interruption goes on with the same one."""

    def __init__(self, run_dir: Path, config: TrackingConfig) -> None:
        """Make the run, or find it.

        Raises:
            ConfigError: mlflow is not installed.
        """
        self._client: Any = _mlflow().MlflowClient(config.mlflow)
        id_file = run_dir / _MLFLOW_RUN
        if not id_file.is_file():
            known = self._client.get_experiment_by_name(config.experiment)
            experiment = known.experiment_id if known else self._client.create_experiment(config.experiment)
            run = self._client.create_run(experiment, run_name=run_dir.name)
            id_file.write_text(run.info.run_id, encoding="utf-8")
        self._run = id_file.read_text(encoding="utf-8")

    def settings(self, values: Mapping[str, Plain], metrics: Mapping[str, float]) -> None:
        """As parameters, which MLflow bounds to 6000 characters; the metrics come as scalars anyhow."""
        del metrics
        for name, value in values.items():
            self._client.log_param(self._run, name, str(value)[:6000])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """As metrics."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def image(self, name: str, image_3HW: NDArray[np.uint8], step: int) -> None:
        """As an artifact, a PNG by step."""
        picture = Image.fromarray(image_3HW.transpose(1, 2, 0))
        self._client.log_image(self._run, picture, artifact_file=f"{name.replace(' ', '_')}/{step:08d}.png")

    def close(self) -> None:
        """Mark the run as ended; a training that goes on opens it again by writing to it."""
        self._client.set_terminated(self._run)


def trackers(run_dir: Path, config: TrackingConfig, step: int) -> list[Tracker]:
    """TensorBoard, and MLflow where the settings name a server."""
    chosen: list[Tracker] = [TensorBoardTracker(run_dir, step)]
    if config.mlflow is not None:
        chosen.append(MlflowTracker(run_dir, config))
    return chosen


def _mlflow() -> ModuleType:
    try:
        return importlib.import_module("mlflow.tracking")
    except ModuleNotFoundError as error:
        message = "train.tracking.mlflow needs the package mlflow-skinny: pip install 'moerank[mlflow]'"
        raise ConfigError(message) from error
