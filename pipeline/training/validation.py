"""Validation: AUC and RMSE of each task on held-out rows, and the health of the experts there.

Shape legend: N rows, T tasks.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from contract.errors import TrainingError
from contract.schema import TaskSpec
from features.batches import BatchReader
from models.diagnostics.expert_health import ExpertHealth, HealthMeter
from models.ranker_tensors import TensorInputs
from models.sharding import Sharded
from pipeline.evaluation.intervals import Users
from pipeline.evaluation.metrics import auc, rmse
from pipeline.evaluation.task_metrics import TaskRows, metric_names, task_statistics

Matrix = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Validation:
    """Metrics by task and metric name, and expert health (of this rank's rows)."""

    metrics: dict[str, dict[str, float]]
    health: ExpertHealth


@torch.no_grad()
def validate(sharded: Sharded, reader: BatchReader, device: torch.device, metric: str | None = None) -> Validation:
    """Score every row, on all ranks together; a task without rows of both classes has no AUC.

    `metric`, one of the evaluation's, comes beside AUC and RMSE for the tasks that have it.

    Raises:
        TrainingError: an answer is not finite.
    """
    ranker = sharded.ranker
    sharded.model.eval()
    meter = HealthMeter(ranker.network.plan, len(ranker.schema.tasks))
    batches: list[tuple[Matrix, Matrix, Matrix, NDArray[np.uint64]]] = []
    with meter.watching(ranker.network):
        for begin, batch in zip(reader.bounds(), reader.epoch(), strict=True):
            own = slice(reader.repeated(begin), None)
            output = sharded.model(TensorInputs.from_numpy(batch.inputs).to(device))
            scores: Matrix = ranker.predictions(output.logits_BT).float().cpu().numpy()
            batches.append((scores[own], batch.labels[own], batch.weights[own], batch.user[own]))
            meter.add(output.routings, batch.rows)
    if not batches:
        return Validation({}, meter.result())
    scores, labels, weights, users = (_gather(np.concatenate(columns)) for columns in zip(*batches, strict=True))
    grouped = Users.of(users) if metric and ranker.schema.user_key else Users.apart(len(users))
    metrics = {}
    _require_finite(ranker.schema.tasks, scores)
    for t, task in enumerate(ranker.schema.tasks):
        columns = scores[:, t], labels[:, t], weights[:, t]
        metrics[task.name] = task_metrics(task, *columns)
        if metric is not None and metric not in metrics[task.name]:
            metrics[task.name] |= _evaluated(task, metric, *columns, grouped, by_user=bool(ranker.schema.user_key))
    return Validation(metrics, meter.result())


def _require_finite(tasks: tuple[TaskSpec, ...], scores_NT: Matrix) -> None:
    for task, scores_N in zip(tasks, scores_NT.T, strict=True):
        if broken := int(np.count_nonzero(~np.isfinite(scores_N))):
            message = (
                f"task {task.name!r}: the model's answers to {broken:,} of {len(scores_N):,} validation rows are not "
                "finite: its weights have grown beyond bounds; lower the learning rates or set train.gradient_clip; "
                "the last checkpoint is untouched"
            )
            raise TrainingError(message)


def task_metrics(task: TaskSpec, scores: Matrix, labels: Matrix, weights: Matrix) -> dict[str, float]:
    """One task's metrics over the rows that it applies to; empty where they are not defined."""
    rows = weights > 0
    scores, labels = scores[rows], labels[rows]
    if len(labels) == 0:
        return {}
    if task.kind == "regression":
        return {"rmse": rmse(labels, scores, name=task.name)}
    return {"auc": auc(labels, scores, name=task.name)} if 0.0 < labels.mean() < 1.0 else {}


def _evaluated(
    task: TaskSpec, metric: str, scores: Matrix, labels: Matrix, weights: Matrix, users: Users, *, by_user: bool
) -> dict[str, float]:
    """One of the evaluation's metrics over the rows that a task applies to; empty where it is not defined."""
    rows = weights > 0
    names = metric_names(task.kind, grouped=by_user)
    if metric not in names:
        return {}
    task_rows = TaskRows(task.name, task.kind, labels[rows], scores[rows], users.take(rows), grouped=by_user)
    whole = np.ones(users.count)
    for statistic in task_statistics(task_rows).statistics:
        if metric in statistic.names:
            value = float(statistic(whole)[statistic.names.index(metric)])
            return {metric: value} if np.isfinite(value) else {}
    return {}


def _gather(own: NDArray[T]) -> NDArray[T]:
    if dist.get_world_size() == 1:
        return own
    everyone: list[NDArray[T] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return np.concatenate([matrix for matrix in everyone if matrix is not None])
