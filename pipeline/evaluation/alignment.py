"""Bring the predictions of several models to the same rows."""

from dataclasses import replace

import numpy as np

from contract.errors import DataError
from pipeline.evaluation.predictions import Kind, Predictions


def align(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Two predictions of the same events, in whatever order, as the same rows and their common tasks.

    Rows are matched by time, user, item and labels; where a file has none of the keys, by their order.

    Raises:
        DataError: not the same events, labels, or kinds of tasks, or no task in common.
    """
    common = [name for name in first.tasks if name in second.tasks]
    if not common:
        message = f"no task in common: one has {', '.join(first.tasks)}, the other {', '.join(second.tasks)}"
        raise DataError(message)
    if first.rows != second.rows:
        message = f"not the same rows: one has {first.rows}, the other {second.rows}; predict both on the same data"
        raise DataError(message)
    first, second = _with_common_keys(first, second)
    one, other = _ordered(first, common), _ordered(second, common)
    for what in ("user", "item", "time", "labels", "weights"):
        # Hashes compare exactly; labels may have passed through another tool's number format.
        mine, theirs = getattr(one, what), getattr(other, what)
        equal = np.isclose(mine, theirs, rtol=1e-6, atol=0.0) if mine.dtype.kind == "f" else mine == theirs
        if not equal.all():
            count = int(np.count_nonzero(~equal.reshape(one.rows, -1).all(axis=1)))
            message = f"not the same rows: {what} differs in {count} of {one.rows}; predict both on the same data"
            raise DataError(message)
    return replace(one, tasks={name: _kind_of(one, other, name) for name in common}), other


def _with_common_keys(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both without the keys that one of them lacks; without any in common they are matched by the order of rows."""
    both = [first, second]
    common = [name for name in ("user", "item", "time") if all(getattr(each, name).any() for each in both)]
    if not common:
        # The rows are the same ones in the same order, so what one knows of them holds for the other.
        knowing = first if first.grouped else second
        same = [
            replace(each, keyed=False, user=knowing.user, item=knowing.item, time=knowing.time, grouped=knowing.grouped)
            for each in both
        ]
        return same[0], same[1]
    grouped = first.grouped and second.grouped
    kept = []
    for each in both:
        dropped = {n: np.zeros_like(getattr(each, n)) for n in ("user", "item", "time") if n not in common}
        kept.append(replace(each, keyed=True, grouped=grouped, **dropped))
    return kept[0], kept[1]


def _kind_of(one: Predictions, other: Predictions, name: str) -> Kind:
    kinds = {one.tasks[name], other.tasks[name]}
    return kinds.pop() if len(kinds) == 1 else "regression"


def _ordered(predictions: Predictions, tasks: list[str]) -> Predictions:
    """Sort rows by time, user, item, labels and weights if they have keys, and keep the named tasks."""
    columns = [list(predictions.tasks).index(name) for name in tasks]
    weights = predictions.weights[:, columns]
    # Where a task does not apply, files differ in what they put in the label's place.
    labels = np.where(weights > 0, predictions.labels[:, columns], np.float32(0))
    order = np.arange(predictions.rows)
    if predictions.keyed:
        keys = (*weights.T, *labels.T, predictions.item, predictions.user, predictions.time)
        order = np.lexsort(keys)
    return replace(
        predictions,
        tasks={name: predictions.tasks[name] for name in tasks},
        labels=labels[order],
        weights=weights[order],
        scores=predictions.scores[:, columns][order],
        user=predictions.user[order],
        item=predictions.item[order],
        time=predictions.time[order],
    )
