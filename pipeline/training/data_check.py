"""A look at the labels and weights of the training rows before the first step.

What would ruin a task silently is refused: weights below zero, labels that are not finite, and a label so far
out that the task's scale is that one row's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.errors import ConfigError, DataError
from contract.schema import Schema, TaskSpec
from features.batches import BatchReader

FAR_OUT = 1e6
"""Robust spreads from the median that no real label lies away; a heavy tail reaches some thousands."""
BEYOND_FLOATS = 1e9
"""How often the typical distance from the median no label may lie away, however many do, as where a huge number stands
for "none": float32 tells numbers apart to one part in 10 million, so that beside these all others would be equal."""
_SAMPLE = 1_000_000
"""Labels that robust figures are taken from, at most."""


@dataclass(frozen=True)
class CheckedTask:
    """What the training rows hold of a task: how many it applies to, and in a sentence what is odd about them."""

    task: str
    rows: int
    remark: str = ""


def check_rows(
    reader: BatchReader, schema: Schema, task_weights: Mapping[str, float] | None = None
) -> tuple[CheckedTask, ...]:
    """Look at every label and weight once; the settings may leave a task out by a weight of 0.

    Raises:
        DataError: a negative or infinite weight, a label that is not finite or absurdly far out, or no task with a row
            that counts.
        ConfigError: no such task has a weight in the settings.
    """
    checks = tuple(_check(task, *reader.labels_of(task.name)) for task in schema.tasks)
    if not any(each.rows for each in checks):
        message = (
            f"the weights of all tasks ({', '.join(each.task for each in checks)}) are zero in all "
            f"{reader.total_rows} training rows: there is nothing to learn; look at `weight`, `where` and the split"
        )
        raise DataError(message)
    if not any(each.rows and (task_weights or {}).get(each.task, 1.0) for each in checks):
        message = (
            "train.task_weights is 0 for every task that training rows count for "
            f"({', '.join(each.task for each in checks if each.rows)}): there is nothing to learn; give one a weight"
        )
        raise ConfigError(message)
    return checks


def _check(task: TaskSpec, labels: NDArray[np.float32], weights: NDArray[np.float32]) -> CheckedTask:
    wrong = np.flatnonzero((weights < 0) | ~np.isfinite(weights))
    if len(wrong):
        message = (
            f"task {task.name!r}: the weight of {len(wrong)} training rows is negative or not finite, such as "
            f"{weights[wrong[0]]:g}; a weight is 0 (the row does not count) or more: mend data.tasks[].weight"
        )
        raise DataError(message)
    labels = labels[weights > 0]
    if not len(labels):
        return CheckedTask(task.name, 0, f"task {task.name!r} is left out: no training row has a weight for it")
    _refuse_far_out(task, labels)
    if (labels == labels[0]).all():
        remark = f"task {task.name!r}: its label is {labels[0]:g} in all {len(labels)} training rows that count"
        return CheckedTask(task.name, len(labels), remark)
    return CheckedTask(task.name, len(labels))


def _refuse_far_out(task: TaskSpec, labels: NDArray[np.float32]) -> None:
    broken = labels[~np.isfinite(labels)]
    if not len(broken) and task.kind == "regression":
        values = labels.astype(np.float64)
        middle, spread = robust_scale(values)
        bound = min(FAR_OUT * spread or np.inf, BEYOND_FLOATS * typical_distance(values) or np.inf)
        broken = labels[np.abs(values - middle) > bound]
    if len(broken):
        message = (
            f"task {task.name!r}: the label of {len(broken)} of {len(labels)} training rows is {broken[0]:g}, which no "
            "scale can hold beside the others; mend the rows, or bound data.tasks[].label (for example with least(...))"
        )
        raise DataError(message)


def robust_scale(values: NDArray[np.float64]) -> tuple[float, float]:
    """The median, and the standard deviation without the outermost thousandth on each side.

    Example:
        >>> values = np.append(np.arange(10_000.0), 1e30)
        >>> middle, spread = robust_scale(values)
        >>> middle, round(spread)
        (5000.0, 2881)
    """
    sample = _sample(values)
    low, middle, high = np.quantile(sample, [0.001, 0.5, 0.999], method="nearest")
    return float(middle), float(sample[(sample >= low) & (sample <= high)].std())


def typical_distance(values: NDArray[np.float64]) -> float:
    """The median distance from the median of the values that are not equal to it; 0 where all are.

    Example:
        >>> typical_distance(np.repeat([0.0, 3.0, 1e30], [900, 60, 40]))
        3.0
    """
    sample = _sample(values)
    distances = np.abs(sample - np.median(sample))
    apart = distances[distances > 0]
    return float(np.quantile(apart, 0.5, method="nearest")) if len(apart) else 0.0


def _sample(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[:: -(-len(values) // _SAMPLE)]
