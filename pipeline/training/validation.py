"""Validation: AUC and RMSE of each task on held-out rows, and the health of the experts there.

Shape legend: N rows, T tasks.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from contract.schema import TaskSpec
from features.batches import BatchReader
from models.diagnostics.expert_health import ExpertHealth, HealthMeter
from models.ranker_tensors import TensorInputs
from models.sharding import Sharded
from pipeline.evaluation.metrics import auc, rmse

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Validation:
    """Metrics by task and metric name, and expert health (of this rank's rows)."""

    metrics: dict[str, dict[str, float]]
    health: ExpertHealth


@torch.no_grad()
def validate(sharded: Sharded, reader: BatchReader, device: torch.device) -> Validation:
    """Score every row, on all ranks together; a task without rows of both classes has no AUC."""
    ranker = sharded.ranker
    sharded.model.eval()
    meter = HealthMeter(ranker.network.plan, len(ranker.schema.tasks))
    batches: list[tuple[Matrix, Matrix, Matrix]] = []
    with meter.watching(ranker.network):
        for begin, batch in zip(reader.bounds(), reader.epoch(), strict=True):
            own = slice(reader.repeated(begin), None)
            output = sharded.model(TensorInputs.from_numpy(batch.inputs).to(device))
            scores: Matrix = ranker.predictions(output.logits_BT).float().cpu().numpy()
            batches.append((scores[own], batch.labels[own], batch.weights[own]))
            meter.add(output.routings, batch.rows)
    if not batches:
        return Validation({}, meter.result())
    scores, labels, weights = (_gather(np.concatenate(columns)) for columns in zip(*batches, strict=True))
    metrics = {
        task.name: task_metrics(task, scores[:, t], labels[:, t], weights[:, t])
        for t, task in enumerate(ranker.schema.tasks)
    }
    return Validation(metrics, meter.result())


def task_metrics(task: TaskSpec, scores: Matrix, labels: Matrix, weights: Matrix) -> dict[str, float]:
    """One task's metrics over the rows that it applies to; empty where they are not defined."""
    rows = weights > 0
    scores, labels = scores[rows], labels[rows]
    if len(labels) == 0:
        return {}
    if task.kind == "regression":
        return {"rmse": rmse(labels, scores, name=task.name)}
    return {"auc": auc(labels, scores, name=task.name)} if 0.0 < labels.mean() < 1.0 else {}


def _gather(own: Matrix) -> Matrix:
    if dist.get_world_size() == 1:
        return own
    everyone: list[Matrix | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return np.concatenate([matrix for matrix in everyone if matrix is not None])
