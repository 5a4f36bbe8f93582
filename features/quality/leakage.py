"""Find features that know the label: one that alone ranks unseen rows almost perfectly was made of it, or after it.

A number is judged by its own order and by the mean label of its bin, an id by the mean label of its row; means are of
training rows and are judged on validation rows, so that a feature with many values gains nothing by remembering.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from contract.columns import label_column, weight_column
from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from features.feature_config import ChecksConfig

SAMPLE_ROWS = {"train": 100_000, "valid": 30_000}
_LEAST = 20
"""Rows of each class without which an AUC says nothing."""
Column = NDArray[np.float64]


@dataclass(frozen=True)
class LeakFinding:
    """A feature, a task, and how well the one tells the other: AUC, or the size of the rank correlation."""

    feature: str
    task: str
    measure: str
    value: float

    def __str__(self) -> str:
        return (
            f"feature {self.feature!r} alone tells task {self.task!r} with {self.measure} {self.value:.3f} on rows "
            "that were not fitted"
        )


def find_leaks(
    directory: Path, schema: Schema, checks: ChecksConfig, earlier: Collection[str] = ()
) -> list[LeakFinding]:
    """What single features tell beyond the threshold, the worst first; over at most `SAMPLE_ROWS` rows.

    Features made of strictly `earlier` events cannot be made of the label, however well they tell it.

    Raises:
        DataError: there are some, and the recipe refuses them.
    """
    if checks.leakage == "off":
        return []
    specs = [s for s in schema.features if s.name not in checks.allow and not (isinstance(s, IdSpec) and s.max_length)]
    names = [s.name for s in specs] + [f"{k}__{t.name}" for t in schema.tasks for k in ("label", "weight")]
    train, valid = (_sample(directory / split, names, most) for split, most in SAMPLE_ROWS.items())
    findings = []
    for task in schema.tasks:
        for spec in specs:
            measure, value = _judge(spec, task, train, valid)
            if value >= min(checks.leakage_at, checks.leakage_warn_at):
                findings.append(LeakFinding(spec.name, task.name, measure, round(value, 4)))
    findings.sort(key=lambda finding: -finding.value)
    leaks = [one for one in findings if one.value >= checks.leakage_at and one.feature not in earlier]
    if leaks and checks.leakage == "refuse":
        message = (
            f"{leaks[0]} ({len(leaks)} such pairs, bound {checks.leakage_at:g}): it is made of the label or newer than "
            "it; remove it, name it in data.checks.allow, or set data.checks.leakage: warn"
        )
        raise DataError(message)
    return findings


def _sample(path: Path, names: list[str], most: int) -> dict[str, Column]:
    """The first rows of a dataset as floats by column."""
    table = EncodedDataset.open(path).read(names, most)
    return {name: table[name].to_numpy().astype(np.float64) for name in names}


def _judge(
    spec: IdSpec | DenseSpec, task: TaskSpec, train: dict[str, Column], valid: dict[str, Column]
) -> tuple[str, float]:
    (fit_on, fit_label), (judge_on, judge_label) = (_applicable(spec.name, task, part) for part in (train, valid))
    candidates = [judge_on] if isinstance(spec, DenseSpec) else []
    if len(fit_on) and (isinstance(spec, IdSpec) or spec.bins):
        candidates.append(_mean_label(fit_on, fit_label, judge_on))
    if task.kind == "binary":
        values = [auc(score, judge_label) for score in candidates]
        return "AUC", max((max(v, 1 - v) for v in values), default=0.5)
    return "rank correlation", max((abs(_rank_correlation(score, judge_label)) for score in candidates), default=0.0)


def _applicable(name: str, task: TaskSpec, part: dict[str, Column]) -> tuple[Column, Column]:
    applies = part[weight_column(task.name)] > 0
    return part[name][applies], part[label_column(task.name)][applies]


def _mean_label(values: Column, labels: Column, judged_values: Column) -> Column:
    """The mean label over training rows of each wanted value's bin, drawn to the overall mean by one row."""
    bins = np.floor(values).astype(np.int64) + 1
    judged_bins = np.floor(judged_values).astype(np.int64) + 1
    size = int(max(bins.max(initial=0), judged_bins.max(initial=0))) + 1
    total, seen = np.bincount(bins, labels, size), np.bincount(bins, minlength=size)
    return np.asarray(((total + labels.mean()) / (seen + 1))[judged_bins])


def auc(score: Column, label: Column) -> float:
    """The probability that a positive scores above a negative, ties half; 0.5 where a class is too small to say."""
    positives = int(np.count_nonzero(label > 0))
    negatives = len(label) - positives
    if min(positives, negatives) < _LEAST:
        return 0.5
    ranks = rankdata(score)
    return float((ranks[label > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _rank_correlation(score: Column, label: Column) -> float:
    """Spearman's rank correlation; 0 where one of the two does not vary."""
    if len(score) < _LEAST or np.ptp(score) == 0 or np.ptp(label) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(score), rankdata(label))[0, 1])
