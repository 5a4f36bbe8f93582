"""The result of an offline evaluation: what ``evaluation.json`` holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import JsonValue

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.task_metrics import HEADLINE, LOWER_IS_BETTER, Estimate

EVALUATION_FILE = "evaluation.json"
_SLICE_LEVEL = 0.05
TaskScores = dict[str, dict[str, Estimate]]
"""Task -> metric -> estimate."""


class SliceTest(Settings):
    """A metric of a slice minus that of all rows, and the p-value, adjusted for all tests on slices (Holm)."""

    difference: float
    p_adjusted: float

    @property
    def differs(self) -> bool:
        """Whether the slice differs from the whole, with a chance of 5 % that any slice is called so by mistake."""
        return self.p_adjusted <= _SLICE_LEVEL


class Slice(Settings):
    """A part of the rows, the metrics that they define, and why they do not define others."""

    rows: int
    tasks: TaskScores
    undefined: dict[str, dict[str, str]] = {}
    tests: dict[str, dict[str, SliceTest]] = {}
    """Task -> metric -> how it differs from the whole; without slices of too few users."""


class EvaluationMethod(Settings):
    """How the intervals were made."""

    interval: str
    level: float
    replicates: int
    seed: int


class Evaluation(Settings):
    """Metrics with intervals of a model and its baselines on one set of rows.

    `slices` goes slice -> value -> rows and tasks; `experts` says what is known of the mixture's use.
    """

    model: str
    data: str
    rows: int
    tasks: TaskScores
    baselines: dict[str, TaskScores]
    slices: dict[str, dict[str, Slice]]
    experts: dict[str, JsonValue]
    method: EvaluationMethod
    undefined: dict[str, dict[str, str]] = {}
    """Task -> metric -> why these rows do not define it."""
    units: dict[str, str] = {}
    """Unit of each regression task's label, where it has one."""
    tree_ids: dict[str, str] = {}
    """How the baseline of boosted trees reads ids in each task, as ``categories`` or as ``numbers``."""
    findings: tuple[str, ...] = ()
    """What a person should act on, in words and with the remedy."""

    def save(self, directory: Path) -> Path:
        """Write ``evaluation.json`` in one step and return its path."""
        path = directory / EVALUATION_FILE
        write_text(self.model_dump_json(indent=1) + "\n", path)
        return path

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``evaluation.json``.

        Raises:
            DataError: it cannot be read.
        """
        path = directory / EVALUATION_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            message = f"{path} cannot be read: {error}; evaluate again with `moerank evaluate BUNDLE --data PARQUET`"
            raise DataError(message) from error

    def headline(self) -> dict[str, dict[str, float]]:
        """The one metric to look at first for each task (AUC or RMSE), for the model and each baseline.

        Empty for a task whose rows do not define it; `undefined` says why.
        """
        headlines: dict[str, dict[str, float]] = {}
        for task, scores in self.tasks.items():
            metric = headline_metric(scores)
            headlines[task] = {}
            if metric is not None:
                others = {
                    f"{metric} of {name}": base[task][metric].value
                    for name, base in self.baselines.items()
                    if metric in base[task]
                }
                headlines[task] = {metric: scores[metric].value, **others}
        return headlines

    def unit_of(self, task: str, metric: str) -> str:
        """The unit of a metric's value, with a space before it: the label's for errors, nothing for others.

        Example::

            f"rmse 0.9947{evaluation.unit_of('rating', 'rmse')}"  # rmse 0.9947 stars
        """
        unit = self.units.get(task, "")
        return f" {unit}" if unit and metric in ("rmse", "mae") else ""

    def why_no_headline(self, task: str) -> str:
        """A sentence about a task whose rows do not define its AUC or RMSE."""
        for metric in HEADLINE.values():
            if metric in self.undefined.get(task, {}):
                return f"{metric} is not defined because {self.undefined[task][metric]}"
        return "it has no metrics"


def headline_metric(scores: Mapping[str, Estimate]) -> str | None:
    """AUC for a binary task, RMSE for a regression task; None where the rows do not define it."""
    return next((metric for metric in HEADLINE.values() if metric in scores), None)


def better(metric: str, first: float, second: float) -> bool:
    """Whether the first value is better than the second; calibration is better nearer to 1."""
    if metric == "calibration":
        return abs(first - 1.0) < abs(second - 1.0)
    return first < second if metric in LOWER_IS_BETTER else first > second
