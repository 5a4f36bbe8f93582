"""Encoded rows with what should be said of them, and all their slices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contract.schema import Schema
from pipeline.evaluation.baselines import TrainingRows
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.slices import Masks, by_feature, by_history
from pipeline.evaluation.time_slices import TIME_SLICES, by_time


@dataclass(frozen=True)
class LabelledRows:
    """Encoded rows, what they are called, the time zone in which their days begin, and notes on them for the reader."""

    dataset: Path
    name: str
    zone: str = "UTC"
    notes: tuple[str, ...] = ()


def slice_masks(
    predictions: Predictions,
    rows: LabelledRows,
    training: TrainingRows | None,
    schema: Schema,
    fitted: Path,
    slice_by: Sequence[str],
    numbers: NDArray[np.int64] | None = None,
) -> dict[str, Masks]:
    """The slices of encoded rows, masks [N] by name and value: those of `slice_by`, days, new users and items.

    `fitted` is a directory with the vocabularies of the schema; `numbers` are the places of `predictions` among the
    encoded rows, in the order of reading, where they are not all of them.

    Raises:
        ConfigError: a slice that these rows do not have.
    """
    moments = [name for name in slice_by if name in TIME_SLICES]
    features = tuple(name for name in slice_by if name not in moments)
    masks = by_feature(features, rows.dataset, schema, fitted, numbers)
    if training is not None:
        masks = by_history(predictions, training, schema) | masks
    return masks | by_time(predictions, moments, rows.zone)
