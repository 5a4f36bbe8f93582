"""Cheaper ways to answer, written beside the graph: a cascade, fewer experts per row, and item priors; and their costs.

What each costs is measured on the validation rows: AUC over all of them, and NDCG@10 within lists of rows in a row. A
list of a cascade is four times as long as what the experts see of it.

Shape legend: N rows, T tasks, I items.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from contract.columns import ITEM_HASH, label_column, weight_column
from contract.dataset import EncodedDataset
from contract.errors import DataError, ExportError
from contract.graph_names import CASCADE, CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE, MODEL_FILE
from contract.inputs import Inputs
from contract.schema import Schema
from contract.settings import Settings
from features.batches import BatchReader
from features.source.parquet_files import write_table
from models.export import ExportReport
from models.export.onnx_file import annotate
from models.export.stage_graphs import export_cheap_head, export_fewer_experts
from models.ranker import Ranker
from pipeline.evaluation.list_metrics import ndcg
from pipeline.evaluation.metrics import auc
from serving.graph.graph_files import graph_in
from serving.graph.stages import FALLBACK_STAGE, FEWER_STAGE, PRIOR_KEY, ItemPrior

FIT_ROWS, BATCH_ROWS = 16_384, 2_048
LIST_ROWS, CASCADE_LISTS = 100, 4
"""Rows of a list; how many times what the experts see a cascade's lists have."""
PRIOR_WEIGHT = 20.0
"""An item's mean is drawn to that of all rows as by so many rows."""
NDCG_AT = 10
Array = NDArray[np.float32]


class StageGuard(Settings):
    """What each may cost on the validation rows, in any binary task."""

    ndcg: float = Field(default=0.01, ge=0)
    """NDCG@10 of a cascade and of fewer experts, absolutely."""
    auc: float = Field(default=0.01, ge=0)
    """AUC of these, absolutely."""
    fallback: float = Field(default=0.25, ge=0)
    """Either of the fallback, which knows no user and stands in for no answer at all."""

    def of(self, cost: "StageCost") -> float:
        """How much of a metric a stage may lose."""
        if cost.stage == FALLBACK_STAGE:
            return self.fallback
        return self.auc if cost.metric == "auc" else self.ndcg

    def require(self, *costs: "StageCost") -> None:
        """Refuse what loses more.

        Raises:
            ExportError: naming stages, tasks, values and what is allowed.
        """
        lost = [f"{cost} (allowed: {self.of(cost):g} less)" for cost in costs if cost.lost > self.of(cost)]
        if lost:
            message = (
                f"{'; '.join(lost)}; raise export.stages.cascade or fewer_experts, leave out the fallback, or allow "
                "more by export.stages.guard"
            )
            raise ExportError(message)


class StagesConfig(Settings):
    """Cheaper ways to answer, which the bundle then holds."""

    cascade: int = Field(default=0, ge=0)
    """Candidates that the experts see at most: the best of a cheap head, fitted to the model's answers. 0: all."""
    fewer_experts: int = Field(default=0, ge=0)
    """Experts a row and gate under load, at the least: a server may take more. 0: as many as ever."""
    fallback: bool = False
    """Keep items' mean labels, to rank by when half of a deadline is gone."""
    guard: StageGuard = StageGuard()
    """Refuse what costs more."""


@dataclass(frozen=True)
class StageCost:
    """What a task loses by one stage: a metric with the whole model, and with the stage."""

    stage: str
    task: str
    metric: str
    whole: float
    stage_value: float

    @property
    def lost(self) -> float:
        """How much lower the metric is."""
        return self.whole - self.stage_value

    def __str__(self) -> str:
        return f"{self.stage}: {self.task} {self.metric} {self.whole:.4f} -> {self.stage_value:.4f}"


def write_stages(ranker: Ranker, report: ExportReport, features: Path, out: Path, config: StagesConfig) -> None:
    """Write what the settings ask for into `out`, beside the graph.

    Raises:
        ExportError: a graph cannot be written.
    """
    for name in (CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE):
        # Those of an earlier export would be published beside a graph of other weights.
        (out / name).unlink(missing_ok=True)
    train = features / "train"
    if config.cascade:
        batches = islice(BatchReader(train, ranker.schema, BATCH_ROWS).epoch(), FIT_ROWS // BATCH_ROWS)
        export_cheap_head(ranker, report, [batch.inputs for batch in batches], out / CHEAP_FILE)
        annotate(out / CHEAP_FILE, {CASCADE: str(config.cascade)})
    if config.fewer_experts:
        export_fewer_experts(ranker, report, config.fewer_experts, out / FEWER_FILE)
    if config.fallback:
        write_table(item_prior(train, ranker.schema), out / ITEM_PRIOR_FILE)


def item_prior(train: Path, schema: Schema) -> pa.Table:
    """Items' smoothed mean labels by task, by the hash of their key; hash 0 has the means of all rows."""
    names = [name for task in schema.tasks for name in (label_column(task.name), weight_column(task.name))]
    rows = EncodedDataset.open(train).read([ITEM_HASH, *names])
    hashes, place = np.unique(rows[ITEM_HASH].to_numpy(), return_inverse=True)
    columns: dict[str, Any] = {PRIOR_KEY: np.append(np.uint64(0), hashes)}
    for task in schema.tasks:
        labels, weights = (rows[c(task.name)].to_numpy().astype(np.float64) for c in (label_column, weight_column))
        total, seen = np.bincount(place, labels * weights), np.bincount(place, weights)
        mean = float((labels * weights).sum() / max(weights.sum(), 1e-12))
        smoothed = (total + PRIOR_WEIGHT * mean) / (seen + PRIOR_WEIGHT)
        columns[task.name] = np.append(mean, smoothed).astype(np.float32)
    return pa.table(columns)


def stage_costs(
    out: Path, schema: Schema, valid: Path, config: StagesConfig, answerer: Callable[[Path, Schema], Any]
) -> list[StageCost]:
    """Measure what each stage that was written costs on the validation rows.

    Raises:
        ExportError: a stage that costs more than the guard allows; naming tasks, values and what is allowed.
    """
    written = [name for name in (CHEAP_FILE, FEWER_FILE, ITEM_PRIOR_FILE) if (out / name).is_file()]
    if not written:
        return []
    graphs = (name for name in (MODEL_FILE, *written) if name != ITEM_PRIOR_FILE)
    answer = {name: answerer(graph_in(out, name), schema) for name in graphs}
    rows = _answered(answer, ItemPrior.open(out / ITEM_PRIOR_FILE) if config.fallback else None, schema, valid)
    costs: list[StageCost] = []
    for place, task in enumerate(schema.tasks):
        if task.kind == "binary":
            costs += _of_task(task.name, {name: values[:, place] for name, values in rows.items()}, config)
    config.guard.require(*costs)
    return costs


def _answered(
    answer: Mapping[str, Callable[[Inputs], Array]], prior: ItemPrior | None, schema: Schema, valid: Path
) -> dict[str, Array]:
    """By graph its answers [N, T] to the validation rows, beside their ``labels`` and ``weights``."""
    columns: dict[str, list[Array]] = {}
    tasks = [task.name for task in schema.tasks]
    for batch in BatchReader(valid, schema, BATCH_ROWS).epoch():
        parts: dict[str, Array] = {name: each(batch.inputs) for name, each in answer.items()}
        if prior is not None:
            means, _ = prior.predict(batch.item)
            parts[ITEM_PRIOR_FILE] = np.stack([means[task] for task in tasks], axis=1)
        for name, values in {**parts, "labels": batch.labels, "weights": batch.weights}.items():
            columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def _of_task(task: str, rows: Mapping[str, Array], config: StagesConfig) -> Iterator[StageCost]:
    counts = rows["weights"] > 0
    labels = rows["labels"][counts]
    if len(labels) == 0 or labels.min() == labels.max():
        return
    whole = rows[MODEL_FILE][counts]
    stages = {FEWER_STAGE: (FEWER_FILE, LIST_ROWS), FALLBACK_STAGE: (ITEM_PRIOR_FILE, LIST_ROWS)}
    for stage, (name, size) in stages.items():
        if name in rows:
            yield from _compared(stage, task, labels, whole, rows[name][counts], size)
    if CHEAP_FILE in rows:
        size = min(CASCADE_LISTS * config.cascade, len(labels))
        scores = cascaded(rows[CHEAP_FILE][counts], whole, config.cascade, size)
        yield from _compared(f"cascade to {config.cascade} of {size}", task, labels, whole, scores, size)


def cascaded(cheap: Array, whole: Array, most: int, size: int) -> Array:
    """The scores [N] of a cascade over lists of `size` rows: of the best `most` the whole model's, else the head's."""
    scores = whole.astype(np.float32).copy()
    for begin in range(0, len(cheap), size):
        rows = slice(begin, begin + size)
        others = np.argsort(-cheap[rows], kind="stable")[most:]
        scores[rows][others] = cheap[rows][others]
    return scores


def _compared(stage: str, task: str, labels: Array, whole: Array, changed: Array, size: int) -> Iterator[StageCost]:
    lists = np.arange(len(labels)) // size
    values = [float(auc(labels, each, name=task)) for each in (whole, changed)]
    yield StageCost(stage, task, "auc", *values)
    try:
        values = [ndcg(labels, each, lists, NDCG_AT, name=task) for each in (whole, changed)]
    except DataError:
        return
    yield StageCost(stage, task, f"ndcg@{NDCG_AT}", *values)
