"""How far a run has come: kept in every checkpoint, so that a rerun goes on from there."""

from typing import Any

from pydantic import JsonValue, model_validator

from contract.errors import ConfigError
from contract.schema import TaskSpec
from contract.settings import Settings
from pipeline.training.train_config import TrainConfig

EpochRecord = dict[str, JsonValue]


class Best(Settings):
    """The best epoch so far (from 1), its checkpoint's step and its metric; higher is better."""

    epoch: int
    step: int
    value: float


class RunProgress(Settings):
    """`epoch` (from 0) and, in its order of rows, `row` come next; `step` counts all steps; `stopped` on purpose.

    The position is in rows of all ranks, so that another number of ranks goes on where this one stopped.
    """

    epoch: int = 0
    row: int = 0
    step: int = 0
    history: tuple[EpochRecord, ...] = ()
    best: Best | None = None
    stopped: bool = False

    @model_validator(mode="before")
    @classmethod
    def _finished_epochs_of_old(cls, data: Any) -> Any:
        # Earlier versions counted steps of a rank within the epoch; of finished runs the count is 0.
        if isinstance(data, dict) and data.get("step_in_epoch") == 0:
            return {name: value for name, value in data.items() if name != "step_in_epoch"}
        return data

    def after_step(self, row: int) -> "RunProgress":
        """One step on, to a row of the epoch's order."""
        return self.model_copy(update={"step": self.step + 1, "row": row})

    def after_epoch(self, record: EpochRecord, value: float | None, config: TrainConfig) -> "RunProgress":
        """One epoch on, with its record and the value that early stopping goes by (None: the last epoch is best)."""
        done = self.epoch + 1
        best = self.best
        if value is None or best is None or value > best.value:
            best = Best(epoch=done, step=self.step, value=0.0 if value is None else value)
        patience = config.early_stopping.patience if config.early_stopping else config.epochs
        return RunProgress(
            epoch=done,
            step=self.step,
            history=(*self.history, record),
            best=best,
            stopped=done - best.epoch >= patience,
        )


def check_metric(config: TrainConfig, tasks: tuple[TaskSpec, ...]) -> None:
    """Refuse to stop early by a metric that does not exist.

    Raises:
        ConfigError: naming what is allowed.
    """
    names = ["mean", *(task.name for task in tasks)]
    if config.early_stopping and config.early_stopping.metric not in names:
        message = f"train.early_stopping.metric is {config.early_stopping.metric!r}; allowed are: {', '.join(names)}"
        raise ConfigError(message)


def goodness(metrics: dict[str, dict[str, float]], tasks: tuple[TaskSpec, ...], config: TrainConfig) -> float | None:
    """The value that early stopping goes by, higher being better; None where validation could not tell.

    A binary task counts with its AUC, a regression task with 1 - (RMSE / spread)^2.
    """
    metric = config.early_stopping.metric if config.early_stopping else "mean"
    values = []
    for task in tasks:
        of_task = metrics.get(task.name, {})
        if metric not in {"mean", task.name}:
            continue
        if "auc" in of_task:
            values.append(of_task["auc"])
        elif "rmse" in of_task:
            values.append(1.0 - (of_task["rmse"] / max(task.spread, 1e-6)) ** 2)
    return sum(values) / len(values) if values else None
