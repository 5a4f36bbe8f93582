"""Learn the base rate and the spread of a task's label from training rows."""

import math

import numpy as np
from numpy.typing import NDArray

from contract.columns import label_column, weight_column
from contract.errors import DataError
from contract.schema import TaskSpec
from features.encode.encoder import as_float64
from features.feature_config import TaskConfig
from features.incremental.raw_dataset import RawDataset


def fit_task(train: RawDataset, task: TaskConfig) -> TaskSpec:
    """A task with its mean and spread over training rows.

    Raises:
        DataError: labels of one class, none, too many classes, or too large to fit; weights that are all 0.
    """
    labels = _numbers(train, label_column(task.name), task.name, "the label of task")
    labels = labels[~np.isnan(labels)]
    if task.weight:
        _require_weights(_numbers(train, weight_column(task.name), task.name, "the weight of task"), task)
    if task.kind == "binary":
        ones, zeros = np.count_nonzero(labels == 1.0), np.count_nonzero(labels == 0.0)
        if not ones or not zeros or ones + zeros < len(labels):
            raise _not_binary(task, labels)
        mean = int(ones) / len(labels)
        spread = math.sqrt(mean * (1.0 - mean))
    elif len(labels):
        # In order, so that sums do not depend on the order of rows.
        labels = np.sort(labels)
        with np.errstate(over="ignore"):
            mean, spread = float(labels.mean()), float(labels.std()) or 1.0
        if not (math.isfinite(mean) and math.isfinite(spread)):
            message = f"task {task.name!r}: labels reach {labels[-1]:g}, which is too large to fit; look at `label`"
            raise DataError(message)
    else:
        message = f"task {task.name!r}: no training row has a label; look at `label`, `where` and the split"
        raise DataError(message)
    return TaskSpec(name=task.name, kind=task.kind, unit=task.unit, base_rate=mean, spread=spread)


def _numbers(train: RawDataset, column: str, task: str, owner: str) -> NDArray[np.float64]:
    return as_float64(train.read([column])[column], task, owner)


def _require_weights(weights: NDArray[np.float64], task: TaskConfig) -> None:
    if len(weights) and not np.nan_to_num(weights).any():
        message = (
            f"task {task.name!r}: its weight {task.weight!r} is 0 in all {len(weights)} training rows, so that nothing "
            "could be learned; look at data.tasks[].weight"
        )
        raise DataError(message)


def _not_binary(task: TaskConfig, labels: NDArray[np.float64]) -> DataError:
    classes = np.unique(labels)
    shown = ", ".join(f"{c:g}" for c in classes[:3]) or "none"
    if len(classes) > 1:
        return DataError(
            f"task {task.name!r} is binary, but its label {task.label!r} takes {len(classes)} values "
            f"({shown}, ...); make it a comparison such as '{task.label} >= 1', or use kind: regression"
        )
    return DataError(
        f"task {task.name!r} is binary, but its label {task.label!r} is {shown} in all {len(labels)} training rows "
        "to which it applies; both 0 and 1 must occur (look at `label`, `where` and the split)"
    )
