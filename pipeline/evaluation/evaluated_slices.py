"""The metrics of a slice, and what a test of it against all rows needs.

Shape legend: N rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.evaluate_config import EvaluateConfig
from pipeline.evaluation.influence import influences
from pipeline.evaluation.intervals import Bootstrap, Users
from pipeline.evaluation.numbering import numbered
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Slice
from pipeline.evaluation.slice_tests import SliceInfluence
from pipeline.evaluation.task_metrics import evaluate_tasks


@dataclass(frozen=True)
class EvaluatedSlice:
    """A slice, and what is known of its users for a test against the whole."""

    found: Slice
    influence: SliceInfluence


def evaluated_slice(
    predictions: Predictions, mask: NDArray[np.bool_], config: EvaluateConfig, whole: Users
) -> EvaluatedSlice:  # fmt: skip
    """The metrics that the rows of a mask [N] define, resampling the users that occur in them.

    `whole` numbers the users of all rows. Only the slice's rows are touched: of ten days, ten passes over all rows
    took half of the time.
    """
    # Numbers of users are found again much faster than their hashes.
    numbers, group = numbered(whole.group[mask])
    users = Users(group, numbers.size)
    rows = predictions.take(mask)
    tasks = rows.by_task(users)
    results = evaluate_tasks(tasks, Bootstrap(users.count, config.slice_replicates, config.seed), config.at)
    evaluated = Slice(rows=rows.rows, tasks=results.scores, undefined=results.undefined)
    return EvaluatedSlice(evaluated, SliceInfluence(influences(tasks, results.statistics), numbers))
