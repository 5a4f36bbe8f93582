"""Read labels and scores that any tool wrote as Parquet or CSV, whatever it calls its columns."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.columns import (
    ITEM_HASH,
    KEY,
    LIST,
    PREDICTION,
    TIME,
    USER_HASH,
    label_column,
    prediction_column,
    weight_column,
)
from contract.dataset import EncodedWith
from contract.errors import ConfigError, DataError
from contract.hashing import hash_array
from pipeline.evaluation.file_tables import file_tables
from pipeline.evaluation.predictions import Kind, Predictions, joined

_ROLE = re.compile(r"^(user|item|time|list|key|(label|prediction|weight)\.[^.=]+)$")
_ORDER_ROWS = 1 << 14
"""Of so many rows of a stretch it is looked whether their scores stay apart."""
_MOST_MERGED = 0.05
"""So many of them may become equal: too few pairs to move AUC, and more than the scores of ordinary models lose."""
Columns = Mapping[str, str]
"""What a column is (``user``, ``label.click`` ...) -> its name in the file."""


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """The mapping of ``--columns``: words such as ``label.click=y``.

    Raises:
        ConfigError: a word of another form.

    Example:
        >>> parse_columns(["user=uid", "label.click=y"])
        {'user': 'uid', 'label.click': 'y'}
    """
    mapping = {}
    for word in words:
        role, _, name = word.partition("=")
        if not _ROLE.match(role) or not name:
            message = (
                f"--columns {word}: expected is WHAT=COLUMN, where WHAT is user, item, time, key, list, label.TASK, "
                "prediction.TASK or weight.TASK"
            )
            raise ConfigError(message)
        mapping[role] = name
    return mapping


def load_predictions(path: Path, columns: Columns | None = None) -> Predictions:
    """Read a file of labels and scores.

    Without a mapping the names are those of ``predictions.parquet``: ``__user``, ``__item``, ``__time``,
    ``label__TASK``, ``prediction__TASK``, ``weight__TASK``; all but labels and predictions may lack. Ids may be
    numbers or texts. A row whose label is null or NaN, or whose weight is 0, does not count for that task. A task is
    binary where all its labels are 0 or 1.

    Raises:
        DataError: not a table, no rows, a column is missing, or a value that cannot be used.
    """
    return joined(list(prediction_stretches(path, columns)))


def prediction_stretches(path: Path, columns: Columns | None = None) -> Iterator[Predictions]:
    """As `load_predictions`, a stretch of rows at a time; a directory is read file by file.

    Raises:
        DataError: as `load_predictions`.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        message = f"{path} has no files *.parquet; name a file of labels and predictions, or a directory of such files"
        raise DataError(message)
    rows = 0
    for file in files:
        for table in file_tables(file):
            rows += table.num_rows
            yield from_table(table, columns, str(file))
    if not rows:
        message = f"{path} has no rows; a file of scores has one for each labelled event"
        raise DataError(message)


def from_table(table: pa.Table, columns: Columns | None = None, path: str = "the table") -> Predictions:
    """Labels and scores out of a table, named as in `load_predictions`; `path` is what errors call it.

    Raises:
        DataError: as `load_predictions`.
    """
    # One mapping may speak of several files, of which this one may have the usual names.
    usual = _defaults([role.partition(".")[2] for role in columns or {} if "." in role])
    given = {
        role: name
        for role, name in (columns or {}).items()
        if name in table.column_names or usual[role] not in table.column_names
    }
    tasks = _tasks(path, table, columns or {})
    _refuse_idle(path, given, tasks)
    names = {role: given.get(role, default) for role, default in _defaults(tasks).items()}
    needed = [names[f"{what}.{task}"] for task in tasks for what in ("label", "prediction")]
    missing = [name for name in (*needed, *given.values()) if name not in table.column_names]
    if missing:
        message = (
            f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names)}. A file needs a label and a "
            "prediction of each task: name them as in --columns label.click=y prediction.click=p user=uid"
        )
        raise DataError(message)
    labels, weights, scores = zip(*(_task(path, table, names, task) for task in tasks), strict=True)
    kinds: dict[str, Kind] = {
        task: _kind(label[weight > 0]) for task, label, weight in zip(tasks, labels, weights, strict=True)
    }
    user = _ids(table, names["user"], mapped="user" in given)
    item = _ids(table, names["item"], mapped="item" in given)
    time = _times(path, table, names["time"])
    zeros = np.zeros(table.num_rows, dtype=np.uint64)
    encoded_with = EncodedWith.read(table.schema.metadata)
    return Predictions(
        tasks=kinds,
        labels=np.stack(labels, axis=1),
        weights=np.stack(weights, axis=1),
        scores=np.stack(scores, axis=1),
        user=zeros if user is None else user,
        item=zeros if item is None else item,
        time=np.zeros(table.num_rows, dtype=np.int64) if time is None else time,
        grouped=user is not None,
        keyed=not (user is None and item is None and time is None),
        schema_fingerprint="" if encoded_with is None else encoded_with.schema_fingerprint,
        encoding="" if encoded_with is None else encoded_with.encoding,
        lists=_ids(table, names["list"], mapped="list" in given),
        key=_ids(table, names["key"], mapped=True),
    )


def _refuse_idle(path: str, given: Columns, tasks: Sequence[str]) -> None:
    """Refuse a label or weight of a task that has no prediction: it would be left out without a word."""
    for role, name in given.items():
        task = role.partition(".")[2]
        if task and task not in tasks:
            message = (
                f"--columns {role}={name}: {path} has no prediction of {task!r}, only of {', '.join(tasks)}; name its "
                f"column, as in prediction.{task}=COLUMN, or leave {role} out"
            )
            raise ConfigError(message)


class KeyedScores(NamedTuple):
    """Predictions [N, T] of rows that are known by user, item (hashes [N]) and time [N]; NaN where there is none."""

    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64]
    scores_NT: NDArray[np.float32]


def keyed_scores(path: Path, tasks: Sequence[str], columns: Columns | None = None) -> KeyedScores:
    """Read predictions of some tasks, with or without labels beside them, by what tells their rows apart.

    Raises:
        DataError: not a table, no column of user, item or time, none of a prediction, or one that holds no numbers.
    """
    names = {**_defaults(tasks), **(columns or {})}
    parts = [_keyed(path, table, tasks, names) for table in file_tables(path)]
    return KeyedScores(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _keyed(path: Path, table: pa.Table, tasks: Sequence[str], names: Columns) -> KeyedScores:
    user, item = (
        _ids(table, names[role], mapped=names[role] not in {USER_HASH, ITEM_HASH}) for role in ("user", "item")
    )
    time = _times(str(path), table, names["time"])
    present = [names[f"prediction.{task}"] in table.column_names for task in tasks]
    if user is None or item is None or time is None or not any(present):
        roles = [names[role] for role in ("user", "item", "time")] + [names[f"prediction.{task}"] for task in tasks]
        missing = [name for name in roles if name not in table.column_names]
        message = (
            f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names)}. A teacher's file needs "
            "user, item, time and a prediction of one task at least: name them under `columns` (`prediction.click: p`)"
        )
        raise DataError(message)
    nothing = np.full(table.num_rows, np.nan, dtype=np.float32)
    scores = [
        _floats(str(path), table, names[f"prediction.{task}"]) if there else nothing
        for task, there in zip(tasks, present, strict=True)
    ]
    return KeyedScores(user, item, time, np.stack(scores, axis=1))


def _tasks(path: str, table: pa.Table, named: Columns) -> list[str]:
    """The tasks with a prediction, in the file's order, or in that of the mapping."""
    mapped = [role.partition(".")[2] for role in named if role.startswith("prediction.")]
    tasks = mapped or [name.removeprefix(PREDICTION) for name in table.column_names if name.startswith(PREDICTION)]
    if not tasks:
        message = (
            f"{path} has no column 'prediction__TASK' (it has {', '.join(table.column_names)}); say which columns "
            "are what, as in --columns label.click=y prediction.click=p user=uid"
        )
        raise DataError(message)
    return tasks


def _defaults(tasks: Sequence[str]) -> dict[str, str]:
    names = {"user": USER_HASH, "item": ITEM_HASH, "time": TIME, "list": LIST, "key": KEY}
    for task in tasks:
        names |= {
            f"label.{task}": label_column(task),
            f"prediction.{task}": prediction_column(task),
            f"weight.{task}": weight_column(task),
        }
    return names


def _task(
    path: str, table: pa.Table, names: Columns, task: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Labels, weights and scores [N] of a task; where it does not apply the weight is 0."""
    labels = _floats(path, table, names[f"label.{task}"])
    scores = _floats(path, table, names[f"prediction.{task}"])
    _check_order(path, table, names[f"prediction.{task}"], scores)
    weight = names[f"weight.{task}"]
    weights = _floats(path, table, weight) if weight in table.column_names else np.ones(labels.size, np.float32)
    unusable = (weights < 0) | np.isinf(weights)
    if unusable.any():
        message = (
            f"{path}: {weight} is {weights[unusable][0]} in {np.count_nonzero(unusable)} rows; a weight is a finite "
            "number of at least 0, where 0 says that the task does not apply to the row"
        )
        raise DataError(message)
    applies = ~np.isnan(labels) & (np.nan_to_num(weights) > 0)
    bad = int(np.count_nonzero(applies & ~np.isfinite(scores)))
    if bad:
        message = f"{path}: {names[f'prediction.{task}']} has no finite value in {bad} rows that have a label"
        raise DataError(message)
    zero = np.float32(0)
    return np.where(applies, labels, zero), np.where(applies, weights, zero), np.where(applies, scores, zero)


def _check_order(path: str, table: pa.Table, name: str, scores: NDArray[np.float32]) -> None:
    """Refuse scores whose order 32 bits do not keep, such as times in milliseconds: AUC would be that of ties."""
    if not pa.types.is_floating(table[name].type) and not pa.types.is_integer(table[name].type):
        return
    step = max(1, scores.size // _ORDER_ROWS)
    given = np.unique(table[name].to_numpy()[::step])
    kept = np.unique(scores[::step])
    if given.size - kept.size > max(1, _MOST_MERGED * given.size):
        message = (
            f"{path}: of {given.size} different values of {name!r}, from {given[0]:.17g} to {given[-1]:.17g}, only "
            f"{kept.size} differ as numbers of 32 bits, so their order would be lost; shift or scale them (of "
            "probabilities give the logits): AUC and the list metrics need only the order"
        )
        raise DataError(message)


def _floats(path: str, table: pa.Table, name: str) -> NDArray[np.float32]:
    """A column as float32 [N]; null becomes NaN."""
    column = table[name].combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    try:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        message = f"{path}: column {name!r} is {column.type}, but labels, predictions and weights are numbers"
        raise DataError(message) from error
    return np.asarray(values, dtype=np.float32)


def _kind(labels: NDArray[np.float32]) -> Literal["binary", "regression"]:
    return "binary" if bool(np.isin(labels, (0.0, 1.0)).all()) else "regression"


def _ids(table: pa.Table, name: str, *, mapped: bool) -> NDArray[np.uint64] | None:
    """Hashes [N]: raw ids are hashed as features hash them, so that files of both kinds can be compared."""
    if name not in table.column_names:
        return None
    column = table[name].combine_chunks()
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        # What Spark makes of unsigned numbers of 64 bits.
        column = column.cast(pa.uint64())
    if not mapped and pa.types.is_integer(column.type):
        return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False)).astype(np.uint64)
    return np.asarray(hash_array(column, name), dtype=np.uint64)


def _times(path: str, table: pa.Table, name: str) -> NDArray[np.int64] | None:
    """Milliseconds since 1970 [N], from those or from a time."""
    if name not in table.column_names:
        return None
    column = table[name].combine_chunks()
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    if not pa.types.is_integer(column.type):
        message = f"{path}: column {name!r} is {column.type}, but a time is a timestamp or milliseconds since 1970"
        raise DataError(message)
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False)).astype(np.int64)
