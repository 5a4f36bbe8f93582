"""Differences of two models on slices of the rows, with intervals that hold for all of them together."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtri

from contract.settings import Settings
from pipeline.evaluation.comparing.paired_test import Difference, compare_predictions
from pipeline.evaluation.intervals import LEVEL
from pipeline.evaluation.measure import EvaluateConfig
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.slice_tests import LEAST_USERS
from pipeline.evaluation.slices import Masks


class SliceDifference(Settings):
    """A task's headline metric on a slice: B minus A, with an interval that holds for all slices together."""

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

    @property
    def differs(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0


def compare_slices(
    first: Predictions, second: Predictions, slices: Mapping[str, Masks], config: EvaluateConfig
) -> tuple[tuple[SliceDifference, ...], tuple[str, ...]]:
    """The headline differences of aligned predictions on each slice, and the slices that are too small to tell.

    `slices` are masks [N] of their rows. The intervals are widened for the number of tests (`widened`): equal models
    have one that excludes 0 in at most one of twenty comparisons.
    """
    differences, untested = slice_differences(first, second, slices, config)
    return widened(differences, len(differences)), untested


def slice_differences(
    first: Predictions, second: Predictions, slices: Mapping[str, Masks], config: EvaluateConfig
) -> tuple[list[SliceDifference], tuple[str, ...]]:
    """As `compare_slices`, each interval by itself."""
    quick = config.model_copy(update={"replicates": config.slice_replicates})
    of_slices: list[SliceDifference] = []
    untested = []
    for name, masks in slices.items():
        for value, mask in masks.items():
            rows = np.flatnonzero(mask)
            if np.unique(first.user[rows]).size < LEAST_USERS and first.grouped:
                untested.append(f"{name} {value}")
                continue
            differences, _ = compare_predictions(first.take(rows), second.take(rows), quick, headline_only=True)
            of_slices += [
                _of_slice(name, value, task, metric, each)
                for task, metrics in differences.items()
                for metric, each in metrics.items()
                if each.headline
            ]
    return of_slices, tuple(untested)


def widened(differences: Sequence[SliceDifference], tests: int) -> tuple[SliceDifference, ...]:
    """The same with intervals that hold for `tests` of them together (Bonferroni)."""
    by = 1.0 if tests < 1 else float(ndtri((1.0 - LEVEL) / (2.0 * tests)) / ndtri((1.0 - LEVEL) / 2.0))
    return tuple(
        each.model_copy(
            update={
                "low": each.difference - (each.difference - each.low) * by,
                "high": each.difference + (each.high - each.difference) * by,
            }
        )
        for each in differences
    )


def _of_slice(name: str, value: str, task: str, metric: str, measured: Difference) -> SliceDifference:
    return SliceDifference(
        slice=name,
        value=value,
        task=task,
        metric=metric,
        rows=measured.n,
        a=measured.a,
        b=measured.b,
        difference=measured.difference,
        low=measured.low,
        high=measured.high,
    )
