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
