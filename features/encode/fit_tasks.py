"""Learn the base rate and the spread of a task's label from training rows."""

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.columns import label_column, weight_column
from contract.errors import DataError
from contract.schema import TaskSpec
from features.encode.encoder import as_float64
from features.feature_config import TaskConfig
from features.incremental.raw_dataset import RawDataset


@dataclass(frozen=True)
class _FittedTask:
    """`why_unlearned` says why training rows teach nothing of a task; empty where they do."""

    spec: TaskSpec
    why_unlearned: str = ""


def fit_tasks(
    train: RawDataset, tasks: Sequence[TaskConfig], previous: Sequence[TaskSpec], workers: Executor
) -> tuple[tuple[TaskSpec, ...], dict[str, str]]:
    """All tasks' specs, and why those are unlearned that are: they stay, so that a model answers for all of them.

    `previous`: the tasks of the build that this one grows from.

    Raises:
        DataError: no task can be learned; labels of too many classes, or too large to fit.
    """
    earlier = {task.name: task for task in previous}
    fitted = tuple(workers.map(lambda task: _fit_task(train, task, earlier.get(task.name)), tasks))
    unlearned = {task.spec.name: task.why_unlearned for task in fitted if task.why_unlearned}
    if len(unlearned) == len(fitted):
        reasons = "; ".join(f"task {name!r}: {why}" for name, why in unlearned.items())
        message = f"there is nothing to learn; {reasons} (look at `label`, `where`, `weight` and the split)"
        raise DataError(message)
    return tuple(task.spec for task in fitted), unlearned


def _fit_task(train: RawDataset, task: TaskConfig, earlier: TaskSpec | None) -> _FittedTask:
    labels = _numbers(train, label_column(task.name), task.name, "the label of task")
    labels = labels[~np.isnan(labels)]
    why = _why_unlearned(train, task, labels)
    mean, spread = 0.0, 1.0
    if not len(labels):
        # A run that goes on from an earlier one answers on that one's scale.
        if earlier is not None and earlier.kind == task.kind:
            mean, spread = earlier.base_rate, earlier.spread
    elif task.kind == "binary":
        mean = int(np.count_nonzero(labels == 1.0)) / len(labels)
        spread = math.sqrt(mean * (1.0 - mean))
    else:
        mean, spread = _moments(task, labels)
    return _FittedTask(TaskSpec(name=task.name, kind=task.kind, unit=task.unit, base_rate=mean, spread=spread), why)


def _why_unlearned(train: RawDataset, task: TaskConfig, labels: NDArray[np.float64]) -> str:
    if not len(labels):
        return "no training row has a label"
    if task.weight:
        weights = _numbers(train, weight_column(task.name), task.name, "the weight of task")
        if not np.nan_to_num(weights).any():
            return f"its weight {task.weight!r} is 0 in all {len(weights)} training rows"
    if task.kind == "regression":
        return ""
    classes = np.unique(labels)
    if not np.isin(classes, (0.0, 1.0)).all():
        raise _not_binary(task, classes)
    if len(classes) == 1:
        rows = f"all {len(labels)} training rows to which it applies"
        return f"its label {task.label!r} is {classes[0]:g} in {rows}, and both 0 and 1 must occur"
    return ""


def _moments(task: TaskConfig, labels: NDArray[np.float64]) -> tuple[float, float]:
    # In order, so that sums do not depend on the order of rows.
    labels = np.sort(labels)
    with np.errstate(over="ignore"):
        mean, spread = float(labels.mean()), float(labels.std()) or 1.0
    if not (math.isfinite(mean) and math.isfinite(spread)):
        message = f"task {task.name!r}: labels reach {labels[-1]:g}, which is too large to fit; look at `label`"
        raise DataError(message)
    return mean, spread


def _numbers(train: RawDataset, column: str, task: str, owner: str) -> NDArray[np.float64]:
    return as_float64(train.read([column])[column], task, owner)


def _not_binary(task: TaskConfig, classes: NDArray[np.float64]) -> DataError:
    shown = ", ".join(f"{c:g}" for c in classes[:3])
    if len(classes) == 1:
        return DataError(
            f"task {task.name!r} is binary, but its label {task.label!r} is {shown} wherever it applies; it must be 0 "
            "or 1"
        )
    return DataError(
        f"task {task.name!r} is binary, but its label {task.label!r} takes {len(classes)} values "
        f"({shown}, ...); make it a comparison such as '{task.label} >= 1', or use kind: regression"
    )
