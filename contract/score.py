"""The combined score: a checked formula over task outputs, changeable without retraining.

Shape legend: N candidate rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from contract.errors import ConfigError
from contract.schema import TaskSpec
from contract.settings import Settings
from contract.sha256 import sha256_of_bytes

MAX_WEIGHT = 1e6
"""Bounds the weights of a sum."""
MAX_EXPONENT = 16.0
"""Bounds the exponents of a product."""


class ScoreConfig(Settings):
    """A formula over a row's answers y_t, one for each task t."""

    form: Literal["weighted_sum", "product_of_powers"] = "weighted_sum"
    """``weighted_sum``: sum of w_t * y_t. ``product_of_powers``: product of max(y_t, floor) ** w_t."""
    weights: dict[str, FiniteFloat] = Field(min_length=1)
    """The weight or exponent of each task."""
    floor: float = Field(default=1e-6, ge=1e-9, le=1.0)
    """Keeps zeros and negative regression outputs out of powers."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        limit = MAX_WEIGHT if self.form == "weighted_sum" else MAX_EXPONENT
        for task, weight in self.weights.items():
            if abs(weight) > limit:
                message = f"the weight of {task} is {weight:g}; a {self.form} allows -{limit:g} to {limit:g}"
                raise ValueError(message)
        if not any(self.weights.values()):
            message = "all weights are 0, so every candidate would score the same"
            raise ValueError(message)
        return self

    @property
    def version(self) -> str:
        """Identifies the formula: 12 hexadecimal digits."""
        return sha256_of_bytes(self.model_dump_json().encode())[:12]

    def __str__(self) -> str:
        """The formula as a person would write it."""
        if self.form == "weighted_sum":
            return " + ".join(f"{weight:g} * {task}" for task, weight in self.weights.items())
        return " * ".join(f"max({task}, {self.floor:g}) ** {weight:g}" for task, weight in self.weights.items())


def default_score(tasks: Sequence[TaskSpec]) -> ScoreConfig:
    """The plain mean of the binary tasks, or of all tasks where none is binary."""
    chosen = [task for task in tasks if task.kind == "binary"] or list(tasks)
    return ScoreConfig(weights={task.name: 1.0 / len(chosen) for task in chosen})


class Score:
    """A formula bound to a model's tasks."""

    def __init__(self, config: ScoreConfig, tasks: Sequence[TaskSpec]) -> None:
        """Check the formula against the tasks that there are.

        Raises:
            ConfigError: the formula names a task that the model does not predict.
        """
        known = [task.name for task in tasks]
        for task in config.weights:
            if task not in known:
                message = f"the score formula uses the task {task!r}, but the model predicts {', '.join(known)}"
                raise ConfigError(message)
        self.config = config
        self.version = config.version
        self.tasks = tuple(config.weights)
        """Those that it reads, in the order of `weights_T`."""
        self.weights_T = np.array(list(config.weights.values()), np.float64)
        self.weights_T.flags.writeable = False
        self._weights_T1 = self.weights_T[:, None]

    def __call__(self, predictions: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Scores float32 [N] from each task's float32 [N]; finite where the predictions are."""
        values_TN = np.array([predictions[task] for task in self.tasks], np.float64)
        if self.config.form == "product_of_powers":
            values_TN = np.log(np.maximum(values_TN, self.config.floor))
        total = (self._weights_T1 * values_TN).sum(axis=0)
        if self.config.form == "product_of_powers":
            total = np.exp(np.minimum(np.maximum(total, -_LOG_LARGEST), _LOG_LARGEST))
        # Not np.clip, which costs several times as much for a few values.
        return np.minimum(np.maximum(total, -LARGEST), LARGEST).astype(np.float32)


LARGEST = float(np.finfo(np.float32).max)
"""What a score is at most, either way."""
_LOG_LARGEST = math.log(LARGEST)
