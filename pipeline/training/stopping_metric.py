"""The metric that says which epoch is best, and when to stop: any that the evaluation knows.

``mean`` and a task's name alone stand for headline metrics: AUC, and of a regression task the share of the label's
variance that is explained. ``like.gauc`` is one metric of one task, ``mean.ne`` its mean over the tasks that have it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

from contract.errors import ConfigError
from contract.schema import TaskSpec
from pipeline.evaluation.task_metrics import LOWER_IS_BETTER, metric_names

Metrics = dict[str, dict[str, float]]


@dataclass(frozen=True)
class StoppingMetric:
    """The `tasks` that count, and their `metric`; None: each task's headline."""

    tasks: tuple[TaskSpec, ...]
    metric: str | None

    @classmethod
    def of(cls, text: str, tasks: tuple[TaskSpec, ...], *, grouped: bool = True) -> Self:
        """Read ``NAME`` or ``NAME.METRIC``; `grouped`: rows have users, as GAUC and list metrics need.

        Raises:
            ConfigError: no such task, or none of the tasks has such a metric; it says which there are.
        """
        name, _, metric = text.partition(".")
        chosen = tuple(task for task in tasks if name in {"mean", task.name})
        if not chosen:
            names = ", ".join(["mean", *(task.name for task in tasks)])
            message = f"train.early_stopping.metric is {text!r}; before the dot may stand: {names}"
            raise ConfigError(message)
        having = tuple(task for task in chosen if metric in metric_names(task.kind, grouped=grouped))
        if metric and not having:
            known = dict.fromkeys(m for task in chosen for m in metric_names(task.kind, grouped=grouped))
            message = f"train.early_stopping.metric is {text!r}; after the dot may stand: {', '.join(known)}"
            raise ConfigError(message)
        return cls(having, metric) if metric else cls(chosen, None)

    def without(self, untrained: Collection[str]) -> Self:
        """Leave tasks out that no row trains, whose metrics only wander; if no other is left, keep them."""
        trained = tuple(task for task in self.tasks if task.name not in untrained)
        return replace(self, tasks=trained or self.tasks)

    def value(self, metrics: Metrics) -> float | None:
        """How good a validation is, higher being better; None where it could not tell."""
        values = [
            value for task in self.tasks if (value := self._of_task(metrics.get(task.name, {}), task)) is not None
        ]
        return sum(values) / len(values) if values else None

    def _of_task(self, metrics: dict[str, float], task: TaskSpec) -> float | None:
        if self.metric is not None:
            return None if self.metric not in metrics else goodness(self.metric, metrics[self.metric])
        if "auc" in metrics:
            return metrics["auc"]
        return 1.0 - (metrics["rmse"] / max(task.spread, 1e-6)) ** 2 if "rmse" in metrics else None


def goodness(metric: str, value: float) -> float:
    """A metric's value as a number of which more is better; of calibration, how near it is to 1 on a log scale.

    Example:
        >>> goodness("auc", 0.75), goodness("ne", 0.5), goodness("calibration", 2.0) == goodness("calibration", 0.5)
        (0.75, -0.5, True)
    """
    if metric == "calibration":
        return -abs(math.log(value)) if value > 0 else -math.inf
    return -value if metric in LOWER_IS_BETTER else value
