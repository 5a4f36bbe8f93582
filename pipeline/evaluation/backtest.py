"""Versions of a model on the same raw days: one table, version by day."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.errors import MoerankError
from contract.settings import Settings
from features.encode_days import FittedRecipe, RawDays, encoded_days
from pipeline.evaluation.intervals import Bootstrap
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.predictions import Predictions, predict
from pipeline.evaluation.result import headline_metric
from pipeline.evaluation.slices import Masks
from pipeline.evaluation.task_metrics import Estimate, evaluate_tasks
from pipeline.evaluation.time_slices import by_time
from serving.graph.engine import Engine
from serving.store import bundle

ALL_DAYS = "all"


class VersionDays(Settings):
    """A version's headline metric by task and day, ``all`` among the days; or why it could not be scored.

    `judged` says by task on what: the rows to which it applies, and the sums of their weights and weighted labels.
    """

    version: str
    rows: int = 0
    days: tuple[str, ...] = ()
    judged: dict[str, tuple[int, float, float]] = {}
    tasks: dict[str, dict[str, Estimate]] = {}
    metrics: dict[str, str] = {}
    why_not: str = ""
    notes: tuple[str, ...] = ()


class Backtest(Settings):
    """What all versions reach on the same days."""

    data: str
    versions: tuple[VersionDays, ...]

    def lines(self) -> list[str]:
        """A table for each task: versions down, days across, with the interval of all days together."""
        lines = [f"{self.data}"]
        tasks = dict.fromkeys(task for each in self.versions for task in each.tasks)
        for task in tasks:
            days = dict.fromkeys(day for each in self.versions for day in each.days)
            metric = next(each.metrics[task] for each in self.versions if task in each.metrics)
            lines += ["", f"{task}: {metric}", "".join([f"  {'version':<24}", *(f"{day:>12}" for day in days)])]
            for each in self.versions:
                estimates = each.tasks.get(task, {})
                cells = [f"{estimates[day].value:12.4f}" if day in estimates else f"{'-':>12}" for day in days]
                all_days = estimates.get(ALL_DAYS)
                interval = f"  [{all_days.low:.4f}, {all_days.high:.4f}]" if all_days else ""
                lines.append("".join([f"  {each.version:<24}", *cells, interval]))
        lines += [f"  {each.version}: {each.why_not}" for each in self.versions if each.why_not]
        lines += [f"note: {task}: {note}" for task in tasks if (note := self._unlike(task))]
        return lines + [f"note: {each.version}: {note}" for each in self.versions for note in each.notes]

    def _unlike(self, task: str) -> str:
        """What versions whose recipes do not define a task alike were judged on; empty if all are alike."""
        judged = [(each.version, each.judged[task]) for each in self.versions if task in each.judged]
        if not judged or all(np.allclose(each, judged[0][1], rtol=1e-6, atol=0.0) for _, each in judged):
            return ""
        found = "; ".join(
            f"{version} {rows:,} rows, sum of weights {weights:g}, of labels {labels:g}"
            for version, (rows, weights, labels) in judged
        )
        return f"the recipes have other rows, labels or weights, so these figures are not to be compared ({found})"


def backtest(
    bundles: Sequence[Path], days: RawDays, config: EvaluateConfig, progress: Callable[[str], None]
) -> Backtest:  # fmt: skip
    """Score each bundle on the raw days by its own recipe; one that cannot be scored says why, the others go on.

    `progress` is called with a few words as each version begins.
    """
    versions, data = [], days.describe(days.events or "the recipe's log")
    for path in bundles:
        progress(f"scoring {path}")
        try:
            versions.append(_of_version(path, days, config))
        except MoerankError as error:
            versions.append(VersionDays(version=path.name, why_not=str(error)))
    return Backtest(data=data, versions=tuple(versions))


def _of_version(path: Path, days: RawDays, config: EvaluateConfig) -> VersionDays:
    loaded = bundle.load(path)
    with encoded_days(FittedRecipe.load(path), days, lambda _: None) as encoded:
        predictions = predict(Engine(path, loaded.schema), encoded.dataset, loaded.schema)
        masks: Masks = {ALL_DAYS: np.ones(predictions.rows, dtype=bool)}
        masks |= by_time(predictions, (), encoded.zone).get("day", {})
        notes = tuple(encoded.notes())
    tasks: dict[str, dict[str, Estimate]] = {task: {} for task in predictions.tasks}
    metrics: dict[str, str] = {}
    for day, mask in masks.items():
        for task, estimate, metric in _headlines(predictions, mask, config):
            tasks[task][day], metrics[task] = estimate, metric
    return VersionDays(
        version=loaded.name,
        rows=predictions.rows,
        days=tuple(masks),
        judged=_judged(predictions),
        tasks=tasks,
        metrics=metrics,
        notes=notes,
    )


def _judged(predictions: Predictions) -> dict[str, tuple[int, float, float]]:
    weights = predictions.weights.astype(np.float64)
    applies, sums = np.count_nonzero(weights, axis=0), weights.sum(axis=0)
    labels = np.where(weights > 0, weights * predictions.labels, 0.0).sum(axis=0)
    return dict(zip(predictions.tasks, zip(applies.tolist(), sums.tolist(), labels.tolist(), strict=True), strict=True))


def _headlines(
    predictions: Predictions, mask: NDArray[np.bool_], config: EvaluateConfig
) -> list[tuple[str, Estimate, str]]:
    """Each task's headline metric on some rows, with its name; drawn among all users, some of whom may lack rows."""
    users = predictions.users()
    rows = predictions.by_task(users, mask)
    scores = evaluate_tasks(rows, Bootstrap(users.count, config.slice_replicates, config.seed), config.at).scores
    return [(task, metrics[metric], metric) for task, metrics in scores.items() if (metric := headline_metric(metrics))]
