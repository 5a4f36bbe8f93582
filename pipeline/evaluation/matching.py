"""The events that two sets of predictions share, where each may have more than those."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import DataError
from contract.hashing import combine, hash_array
from pipeline.evaluation.predictions import Predictions


def common_rows(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both, on the events that both have: the same user, item and time, repetitions in their order.

    Raises:
        DataError: they have no event in common.
    """
    one, other = _keys(first), _keys(second)
    _, in_first, in_second = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    if in_first.size == 0:
        message = f"no row in common: {first.rows} and {second.rows} rows share no user, item and time"
        raise DataError(message)
    return first.take(in_first), second.take(in_second)


def common_tasks(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both, of the same rows, with the tasks that both have.

    Raises:
        DataError: they have no task in common, or one of another kind, labels or weights: two recipes define it.
    """
    names = [name for name in first.tasks if name in second.tasks]
    if not names:
        message = f"no task in common: one has {', '.join(first.tasks)}, the other {', '.join(second.tasks)}"
        raise DataError(message)
    one, other = first.of_tasks(names), second.of_tasks(names)
    for place, name in enumerate(names):
        weights, others = one.weights[:, place], other.weights[:, place]
        labels_agree = np.isclose(one.labels[:, place], other.labels[:, place], rtol=1e-6, atol=0.0)
        differ = (weights != others) | ((weights > 0) & ~labels_agree)
        if differ.any() or one.tasks[name] != other.tasks[name]:
            message = (
                f"{name} has other labels or weights in {np.count_nonzero(differ)} of {one.rows} rows, because the "
                "recipes define it differently, so its metrics cannot be compared"
            )
            raise DataError(message)
    return one, other


def places_of_common_rows(first: Predictions, common: Predictions) -> NDArray[np.int64]:
    """Where the rows of `common`, as `common_rows` returned them, stand among those of `first`."""
    keys = _keys(first)
    order = np.argsort(keys)
    return order[np.searchsorted(keys[order], _keys(common))]


def _keys(predictions: Predictions) -> NDArray[np.uint64]:
    """A key for each row, told apart from earlier rows of the same event by how many there are."""
    event = combine(
        [predictions.user | np.uint64(1), predictions.item | np.uint64(1), hash_array(pa.array(predictions.time))]
    )
    order = np.argsort(event, kind="stable")
    ranked = event[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    repetition = np.empty(event.size, dtype=np.uint64)
    repetition[order] = np.arange(event.size) - np.repeat(starts, np.diff(np.append(starts, event.size)))
    keys: NDArray[np.uint64] = event + repetition
    return keys
