"""Bring the predictions of several models to the same rows."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DataError, SchemaMismatchError
from pipeline.evaluation.predictions import Kind, Predictions

_KEYS = ("key", "user", "item", "time")


def align(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Two predictions of the same events, in whatever order, as the same rows and their common tasks.

    Rows are matched by the key of their source where both have it and it tells them apart, else by time, user, item
    and labels; where a file has none of the keys, by their order.

    Raises:
        DataError: not the same events, labels, or kinds of tasks, or no task in common.
        SchemaMismatchError: nothing but the order of rows matches them, and they are of two features builds.
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
    for what in _KEYS:
        mine, theirs = getattr(one, what), getattr(other, what)
        if mine is not None and (mine != theirs).any():
            count = int(np.count_nonzero(mine != theirs))
            message = f"not the same rows: {what} differs in {count} of {one.rows}; predict both on the same data"
            raise DataError(message)
    for place, task in enumerate(common):
        _require_one_definition(one, other, place, task)
    return replace(one, tasks={name: _kind_of(one, other, name) for name in common}), other


def _require_one_definition(one: Predictions, other: Predictions, place: int, task: str) -> None:
    """Refuse rows, the same by all that tells them apart, that a task labels or weighs otherwise on either side."""
    weights, others = one.weights[:, place], other.weights[:, place]
    # Labels and weights may have passed through another tool's number format.
    agree = np.isclose(one.labels[:, place], other.labels[:, place], rtol=1e-6, atol=0.0)
    agree &= np.isclose(weights, others, rtol=1e-6, atol=0.0)
    if agree.all():
        return
    what = f"task {task!r} has other labels or weights in {np.count_nonzero(~agree)} of {one.rows} rows"
    if not one.keyed:
        message = (
            f"not the same rows: {what}, which nothing but their order matches; write a column that tells rows apart "
            "into both, and name it, as in --columns key=impression"
        )
        raise DataError(message)
    message = (
        f"{what}, so its metrics cannot be compared: two recipes define it differently (label, where, weight or within "
        "below data.tasks), or a file lacks its columns. Train both by one definition, or write the one's columns into "
        f"the other and name them, as in --columns label.{task}=y weight.{task}=w"
    )
    raise DataError(message)


def _with_common_keys(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both without the keys that one of them lacks; without any in common they are matched by the order of rows."""
    both = [first, second]
    common = [name for name in _KEYS if all(_has(each, name) for each in both)]
    if "key" in common and not (_repeats(first) and _repeats(second)):
        ordered = [each.take(np.argsort(each.key, kind="stable")) for each in both if each.key is not None]
        return _shared(ordered[0], ordered[1], keyed=True)
    if common == ["key"] and first.key is not None:
        message = (
            f"the key does not tell rows apart: {first.rows} rows have {np.unique(first.key).size} keys, and the files "
            "share no user, item or time; name a column that differs in every row, as in --columns key=impression"
        )
        raise DataError(message)
    if not common:
        if first.schema_fingerprint and second.schema_fingerprint:
            require_build(first, second.schema_fingerprint, "one file of predictions", "the other")
        return _shared(first, second, keyed=False)
    grouped = first.grouped and second.grouped
    kept = []
    for each in both:
        dropped: dict[str, Any] = {n: np.zeros_like(getattr(each, n)) for n in _KEYS[1:] if n not in common}
        kept.append(replace(each, keyed=True, grouped=grouped, key=None, **dropped))
    return kept[0], kept[1]


def _repeats(rows: Predictions) -> bool:
    return rows.key is not None and np.unique(rows.key).size < rows.rows


def alike(one: Predictions, other: Predictions) -> NDArray[np.int64]:
    """The group [N] of each row of two aligned predictions within which a pair is one by chance.

    Rows with the same keys, labels and weights are told apart by the order of both files alone (`place`): where that
    is another one, nothing says which belongs to which.
    """
    if one.place is None or other.place is None or np.array_equal(one.place, other.place):
        return np.arange(one.rows)
    columns = [one.user, one.item, one.time, *one.labels.T, *one.weights.T]
    new = np.append(True, np.zeros(one.rows - 1, dtype=bool))
    for values in columns if one.key is None else [*columns, one.key]:
        new[1:] |= values[1:] != values[:-1]
    return np.cumsum(new) - 1


def _has(rows: Predictions, name: str) -> bool:
    values = getattr(rows, name)
    return values is not None and bool(values.any())


def _shared(first: Predictions, second: Predictions, *, keyed: bool) -> tuple[Predictions, Predictions]:
    """The same rows in the same order: what one knows of them holds for the other."""
    grouped = first.grouped or second.grouped
    pairs = ((first, second), (second, first))
    known: list[dict[str, Any]] = [
        {n: getattr(mine if _has(mine, n) or not _has(other, n) else other, n) for n in _KEYS[1:]}
        for mine, other in pairs
    ]
    one, other = (
        replace(mine, keyed=keyed, grouped=grouped, key=mine.key if keyed else None, **constants)
        for (mine, _), constants in zip(pairs, known, strict=True)
    )
    return one, other


def require_build(rows: Predictions, fingerprint: str, name: str, owner: str) -> None:
    """Refuse predictions that say that another features build encoded their rows.

    Raises:
        SchemaMismatchError: naming both fingerprints.
    """
    if rows.schema_fingerprint and rows.schema_fingerprint != fingerprint:
        message = (
            f"{name} is of rows that were encoded with schema {rows.schema_fingerprint}, but {owner} has schema "
            f"{fingerprint}: rows of two features builds are not the same ones; score raw days with both, by "
            "`moerank predict BUNDLE --events` or `moerank compare A B --events`"
        )
        raise SchemaMismatchError(message)


def _kind_of(one: Predictions, other: Predictions, name: str) -> Kind:
    kinds = {one.tasks[name], other.tasks[name]}
    return kinds.pop() if len(kinds) == 1 else "regression"


def _ordered(predictions: Predictions, tasks: list[str]) -> Predictions:
    """Sort rows by key, time, user, item, labels and weights if they have keys, and keep the named tasks."""
    columns = [list(predictions.tasks).index(name) for name in tasks]
    weights = predictions.weights[:, columns]
    # Where a task does not apply, files differ in what they put in the label's place.
    labels = np.where(weights > 0, predictions.labels[:, columns], np.float32(0))
    chosen = replace(
        predictions,
        tasks={name: predictions.tasks[name] for name in tasks},
        labels=labels,
        weights=weights,
        scores=predictions.scores[:, columns],
    )
    if not predictions.keyed:
        return chosen
    keys = (*weights.T, *labels.T, predictions.item, predictions.user, predictions.time)
    return chosen.take(np.lexsort(keys if predictions.key is None else (*keys, predictions.key)))
