"""What the paired test of a new model against the version that is served found: whole and by slice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from scipy.special import ndtri

from contract.errors import DataError
from contract.files import write_text
from contract.settings import Settings
from pipeline.evaluation.compare import Difference, compare_predictions
from pipeline.evaluation.intervals import LEVEL
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.slices import Masks

AGAINST_FILE = "against_current.json"
LEAST_USERS = 20
"""With fewer users in a slice, drawing them again says little about others."""


class SliceDifference(Settings):
    """A task's headline metric on a slice: new minus current, with an interval that holds for all slices together."""

    slice: str
    value: str
    task: str
    metric: str
    rows: int
    a: float
    b: float
    difference: float
    low: float
    high: float


class AgainstCurrent(Settings):
    """What was compared, on which rows, and what was found: by task for its headline metric, for all metrics, by slice.

    In each difference A is the current version and B the new model. `untested` are slices with too few users.
    """

    version: int
    rows: int
    first: str
    last: str
    tasks: dict[str, Difference]
    differences: dict[str, dict[str, Difference]] = {}
    slices: tuple[SliceDifference, ...] = ()
    untested: tuple[str, ...] = ()

    def save(self, directory: Path) -> None:
        """Write ``against_current.json``."""
        write_text(self.model_dump_json(indent=1) + "\n", directory / AGAINST_FILE)

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        """Read it; None where nothing was compared.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.model_validate_json((directory / AGAINST_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            message = f"{directory / AGAINST_FILE} cannot be read: {error}; publish the run again"
            raise DataError(message) from error


def compare_slices(
    first: Predictions, second: Predictions, slices: Mapping[str, Masks], config: EvaluateConfig
) -> tuple[tuple[SliceDifference, ...], tuple[str, ...]]:
    """The headline differences of aligned predictions on each slice, and the slices that are too small to tell.

    `slices` are masks [N] of their rows. The intervals are widened for the number of tests (Bonferroni): equal models
    have one that excludes 0 in at most one of twenty comparisons.
    """
    quick = config.model_copy(update={"replicates": config.slice_replicates})
    found: list[SliceDifference] = []
    untested = []
    for name, masks in slices.items():
        for value, mask in masks.items():
            rows = np.flatnonzero(mask)
            if np.unique(first.user[rows]).size < LEAST_USERS:
                untested.append(f"{name} {value}")
                continue
            differences, _ = compare_predictions(first.take(rows), second.take(rows), quick, headline_only=True)
            found += [
                _of_slice(name, value, task, metric, each)
                for task, metrics in differences.items()
                for metric, each in metrics.items()
                if each.headline
            ]
    wider = 1.0 if not found else float(ndtri((1.0 - LEVEL) / (2.0 * len(found))) / ndtri((1.0 - LEVEL) / 2.0))
    return tuple(_widened(each, wider) for each in found), tuple(untested)


def _of_slice(name: str, value: str, task: str, metric: str, found: Difference) -> SliceDifference:
    return SliceDifference(
        slice=name,
        value=value,
        task=task,
        metric=metric,
        rows=found.n,
        a=found.a,
        b=found.b,
        difference=found.difference,
        low=found.low,
        high=found.high,
    )


def _widened(found: SliceDifference, by: float) -> SliceDifference:
    low = found.difference - (found.difference - found.low) * by
    high = found.difference + (found.high - found.difference) * by
    return found.model_copy(update={"low": low, "high": high})
