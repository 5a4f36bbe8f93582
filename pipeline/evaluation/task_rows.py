"""The labelled and scored rows of one task."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from contract.errors import DataError
from pipeline.evaluation.intervals import Statistic, Users
from pipeline.evaluation.ranking import Floats, Values

HEADLINE: dict[str, str] = {"binary": "auc", "regression": "rmse"}


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task: labels and scores float [n]; `grouped` says that users are real.

    `weights` [n], above 0, are the rows' sample weights; None: every row counts 1. `lists` groups the rows for GAUC,
    grouped XAUC and the metrics of lists; None: by user.
    """

    name: str
    kind: Literal["binary", "regression"]
    labels: Values
    scores: Values
    users: Users
    grouped: bool = True
    weights: Floats | None = None
    lists: Users | None = None

    @property
    def positives(self) -> int | None:
        """Rows with a positive label; None for a regression task."""
        return int(np.count_nonzero(self.labels == 1)) if self.kind == "binary" else None

    @property
    def is_of_one(self) -> bool:
        """Whether there are rows, but all of one user: nothing says how another user's would differ."""
        return self.labels.size > 0 and bool((self.users.group == self.users.group[0]).all())

    @property
    def row_weights(self) -> Floats:
        """The sample weights, or ones."""
        return np.ones(self.labels.size) if self.weights is None else self.weights

    def check(self) -> None:
        """Refuse values that no metric can use.

        Raises:
            DataError: a label or score is not finite, or a label of a binary task is neither 0 nor 1.
        """
        for what, values in (("label", self.labels), ("score", self.scores)):
            bad = np.flatnonzero(~np.isfinite(values))
            if bad.size:
                place = f"{what} {values[bad[0]]} in row {bad[0]}"
                message = f"{self.name}: {place} is not a finite number ({bad.size} such rows)"
                raise DataError(message)
        if self.kind == "binary":
            bad = np.flatnonzero((self.labels != 0) & (self.labels != 1))
            if bad.size:
                place = f"label {self.labels[bad[0]]} in row {bad[0]}"
                message = f"{self.name}: {place} is not binary; allowed are 0 and 1 ({bad.size} such rows)"
                raise DataError(message)


@dataclass(frozen=True)
class TaskStatistics:
    """The metrics that these rows define, and for each other metric of the task why they do not."""

    statistics: list[Statistic]
    undefined: dict[str, str]
