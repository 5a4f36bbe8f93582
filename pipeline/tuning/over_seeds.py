"""Whether tuned settings are better than a recipe's own: both trained with the same seeds, judged on the same rows.

Shape legend: N rows, T tasks.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from contract.errors import DataError
from contract.schema import Schema
from contract.settings import Settings
from features.batches import BatchReader
from models.ranker_tensors import TensorInputs
from pipeline.evaluation.multiple_tests import holm
from pipeline.training.checkpoint import load_ranker
from pipeline.training.validation import task_metrics

_BATCH = 8192
_LEVEL = 0.05
Metrics = Mapping[str, Mapping[str, float]]


class PairedDifference(Settings):
    """One task's metric of both, seed by seed; `p` of the paired t test, adjusted by Holm for the number of tasks.

    `low` and `high` hold the mean difference, tuned less recipe, with 95 % (Student's t; for this task alone). Seeds
    are what varies: the rows are the same, so nothing is said about other rows.
    """

    task: str
    metric: str
    recipe: tuple[float, ...]
    tuned: tuple[float, ...]
    difference: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``level``."""
        if self.p > _LEVEL:
            return "level"
        return "better" if (self.difference < 0) == (self.metric == "rmse") else "worse"


def judge_run(run_dir: Path, rows: Path, schema: Schema) -> dict[str, dict[str, float]]:
    """AUC or RMSE by task of a run's best epoch over all rows of a split."""
    ranker = load_ranker(run_dir, schema)
    scores, labels, weights = [], [], []
    with torch.no_grad():
        for batch in BatchReader(rows, schema, _BATCH).epoch():
            logits_BT = ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT
            scores.append(ranker.predictions(logits_BT).float().numpy())
            labels.append(batch.labels)
            weights.append(batch.weights)
    columns_NT = [np.concatenate(parts) for parts in (scores, labels, weights)]
    return {
        task.name: task_metrics(task, *(column_NT[:, place] for column_NT in columns_NT))
        for place, task in enumerate(schema.tasks)
    }


def compare_seeds(recipe: Sequence[Metrics], tuned: Sequence[Metrics]) -> list[PairedDifference]:
    """Compare runs of the same seeds, task by task; tasks without a metric on these rows are left out.

    Raises:
        DataError: no task has a metric.

    Example:
        >>> gap = compare_seeds([{"like": {"auc": 0.70}}, {"like": {"auc": 0.72}}],
        ...                     [{"like": {"auc": 0.75}}, {"like": {"auc": 0.77001}}])[0]
        >>> round(gap.difference, 3), gap.verdict
        (0.05, 'better')
    """
    keys = [(task, metric) for task, metrics in recipe[0].items() for metric in metrics]
    pairs = [([run[t][m] for run in recipe], [run[t][m] for run in tuned]) for t, m in keys]
    if not pairs:
        message = "no task has a metric on these rows: each needs rows of both classes"
        raise DataError(message)
    gaps = [np.subtract(b, a) for a, b in pairs]
    adjusted = holm(np.array([_p_value(gap) for gap in gaps]), np.ones(len(gaps)))
    half = float(stats.t.ppf(1.0 - _LEVEL / 2, len(recipe) - 1)) / len(recipe) ** 0.5
    return [
        PairedDifference(
            task=task,
            metric=metric,
            recipe=tuple(a),
            tuned=tuple(b),
            difference=float(gap.mean()),
            low=float(gap.mean() - half * gap.std(ddof=1)),
            high=float(gap.mean() + half * gap.std(ddof=1)),
            p=float(p),
        )
        for (task, metric), (a, b), gap, p in zip(keys, pairs, gaps, adjusted, strict=True)
    ]


def _p_value(gap: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    error = gap.std(ddof=1) / len(gap) ** 0.5
    if error == 0.0:
        return 1.0 if gap.mean() == 0.0 else 0.0
    return float(2.0 * stats.t.sf(abs(gap.mean()) / error, len(gap) - 1))


def seed_lines(differences: Sequence[PairedDifference]) -> list[str]:
    """A table in Markdown, line by line."""
    rows = [["task", "metric", "recipe", "tuned", "difference", "95 % interval", "p, Holm", ""], ["---"] * 8]
    for each in differences:
        means = [f"{np.mean(values):.4f}" for values in (each.recipe, each.tuned)]
        interval = f"{each.low:+.4f} to {each.high:+.4f}"
        rows.append(
            [each.task, each.metric, *means, f"{each.difference:+.4f}", interval, f"{each.p:.3f}", each.verdict]
        )
    return [f"| {' | '.join(row)} |" for row in rows]
