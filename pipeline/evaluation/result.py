"""The result of an offline evaluation: what ``evaluation.json`` holds."""

from pathlib import Path
from typing import Self

from pydantic import JsonValue

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.task_metrics import HEADLINE, LOWER_IS_BETTER, Estimate

EVALUATION_FILE = "evaluation.json"
TaskScores = dict[str, dict[str, Estimate]]
"""Task -> metric -> estimate."""


class Slice(Settings):
    """A part of the rows; tasks with one class only there are left out."""

    rows: int
    tasks: TaskScores


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
        """The one metric to look at first for each task (AUC or RMSE), for the model and each baseline."""
        found = {}
        for task, scores in self.tasks.items():
            metric = headline_metric(scores)
            others = {name: base[task][metric].value for name, base in self.baselines.items() if metric in base[task]}
            found[task] = {metric: scores[metric].value, **{f"{metric} of {n}": value for n, value in others.items()}}
        return found


def headline_metric(scores: dict[str, Estimate]) -> str:
    """AUC for a binary task, RMSE for a regression task."""
    return next(metric for metric in HEADLINE.values() if metric in scores)


def better(metric: str, first: float, second: float) -> bool:
    """Whether the first value is better than the second; calibration is better nearer to 1."""
    if metric == "calibration":
        return abs(first - 1.0) < abs(second - 1.0)
    return first < second if metric in LOWER_IS_BETTER else first > second
