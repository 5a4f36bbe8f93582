"""Predictions of a model on labelled rows: made by the served graph, kept as Parquet, aligned for comparison.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.columns import (
    ITEM_HASH,
    LABEL,
    PREDICTION,
    TIME,
    USER_HASH,
    WEIGHT,
    label_column,
    prediction_column,
    weight_column,
)
from contract.dataset import EncodedDataset
from contract.errors import DataError
from contract.schema import Schema
from features.batches import BatchReader
from features.source.parquet_files import write_table
from pipeline.evaluation.intervals import Users
from pipeline.evaluation.task_rows import TaskRows
from serving.graph.engine import Engine

BATCH_ROWS = 4096
Kind = Literal["binary", "regression"]
Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""


@dataclass(frozen=True)
class Predictions:
    """Labels, weights and scores float32 [N, T], and the hashes uint64 [N] and time in ms int64 [N] of each row.

    Rows with weight 0 for a task are left out of that task. `grouped` is false where the data have no users.
    """

    tasks: dict[str, Kind]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    scores: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64]
    grouped: bool = True

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.user.size)

    def users(self) -> Users:
        """The users to resample; every row by itself where the data have none."""
        return Users.of(self.user) if self.grouped else Users.apart(self.rows)

    def with_scores(self, scores: NDArray[np.float32]) -> Self:
        """The same rows scored by something else, [N, T]."""
        return replace(self, scores=scores)

    def by_task(self, users: Users, rows: NDArray[np.bool_] | None = None) -> dict[str, TaskRows]:
        """The rows of each task to which it applies, within the chosen `rows` [N]."""
        chosen = np.ones(self.rows, dtype=bool) if rows is None else rows
        found = {}
        for column, (name, kind) in enumerate(self.tasks.items()):
            mine = chosen & (self.weights[:, column] > 0)
            labels, scores = self.labels[mine, column], self.scores[mine, column]
            weights = self.weights[mine, column].astype(np.float64)
            equal = weights.size == 0 or bool((weights == weights[0]).all())
            found[name] = TaskRows(
                name, kind, labels, scores, users.take(mine), self.grouped, None if equal else weights
            )
        return found

    def save(self, path: Path) -> None:
        """Write Parquet: `__user`, `__item`, `__time`, and label, weight and prediction columns for each task."""
        columns: dict[str, NDArray[Any]] = {USER_HASH: self.user, ITEM_HASH: self.item, TIME: self.time}
        for column, name in enumerate(self.tasks):
            columns[label_column(name)] = self.labels[:, column]
            columns[weight_column(name)] = self.weights[:, column]
            columns[prediction_column(name)] = self.scores[:, column]
        write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote, or a file of the same columns by any other tool; weights and `__time` may lack.

        A task is binary where all its labels are 0 or 1.

        Raises:
            DataError: not Parquet, or a column is missing.
        """
        table = _read(path)
        tasks = [name.removeprefix(PREDICTION) for name in table.column_names if name.startswith(PREDICTION)]
        needed = [USER_HASH, ITEM_HASH, *(label_column(name) for name in tasks)]
        missing = [name for name in needed if name not in table.column_names]
        if missing or not tasks:
            what = missing[0] if missing else prediction_column("TASK")
            message = f"{path} has no column {what!r}; a prediction file needs __user, __item, label__T, prediction__T"
            raise DataError(message)
        labels = _matrix(table, LABEL, tasks)
        zeros, ones = np.zeros(table.num_rows, dtype=np.int64), np.ones(labels.shape, dtype=np.float32)
        return cls(
            tasks={name: _kind(labels[:, column]) for column, name in enumerate(tasks)},
            labels=labels,
            weights=_matrix(table, WEIGHT, tasks) if weight_column(tasks[0]) in table.column_names else ones,
            scores=_matrix(table, PREDICTION, tasks),
            user=table[USER_HASH].to_numpy().astype(np.uint64),
            item=table[ITEM_HASH].to_numpy().astype(np.uint64),
            time=table[TIME].to_numpy() if TIME in table.column_names else zeros,
        )


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, page_checksum_verification=True)
    except (OSError, pa.ArrowInvalid) as error:
        message = f"{path} cannot be read as Parquet: {error}"
        raise DataError(message) from error


def _matrix(table: pa.Table, prefix: str, tasks: list[str]) -> NDArray[np.float32]:
    return np.stack([table[prefix + name].to_numpy().astype(np.float32) for name in tasks], axis=1)


def _kind(labels: NDArray[np.float32]) -> Kind:
    return "binary" if bool(np.isin(labels, (0.0, 1.0)).all()) else "regression"


def predict(engine: Engine, data: Path, schema: Schema, progress: Progress | None = None) -> Predictions:
    """Score every row of an encoded Parquet with the served graph, each row as a request of its own.

    Raises:
        DataError: the rows lack a column of the schema, are damaged, or there are none.
        SchemaMismatchError: they were encoded with another schema.
        PredictionError: the graph fails or answers with a number that is not finite.
    """
    reader = BatchReader(data, schema, BATCH_ROWS)
    names = [task.name for task in schema.tasks]
    labels, weights, scores, users, items = [], [], [], [], []
    done = 0
    for batch in reader.epoch():
        answers = engine.predict(batch.inputs)
        scores.append(np.stack([answers[name] for name in names], axis=1))
        labels.append(batch.labels)
        weights.append(batch.weights)
        users.append(batch.user)
        items.append(batch.item)
        done += batch.rows
        if progress is not None:
            progress(done, reader.total_rows)
    if not scores:
        message = f"{data} has no rows to evaluate on; at least one is needed"
        raise DataError(message)
    return Predictions(
        tasks={task.name: task.kind for task in schema.tasks},
        labels=np.concatenate(labels),
        weights=np.concatenate(weights),
        scores=np.concatenate(scores),
        user=np.concatenate(users),
        item=np.concatenate(items),
        time=_read_times(reader.dataset),
        grouped=bool(schema.user_key),
    )


def _read_times(data: EncodedDataset) -> NDArray[np.int64]:
    """The rows' times in the order of reading; zeros where the data have none."""
    if TIME not in data.column_names:
        return np.zeros(data.rows, dtype=np.int64)
    times: NDArray[np.int64] = data.read([TIME])[TIME].to_numpy()
    return times


def align(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Bring two predictions of the same events, in whatever order, to the same rows and their common tasks.

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
    one, other = _ordered(first, common), _ordered(second, common)
    for what in ("user", "item", "time", "labels", "weights"):
        # Hashes compare exactly; labels may have passed through another tool's number format.
        mine, theirs = getattr(one, what), getattr(other, what)
        equal = np.isclose(mine, theirs, rtol=1e-6, atol=0.0) if mine.dtype.kind == "f" else mine == theirs
        if not equal.all():
            count = int(np.count_nonzero(~equal.reshape(one.rows, -1).all(axis=1)))
            message = f"not the same rows: {what} differs in {count} of {one.rows}; predict both on the same data"
            raise DataError(message)
    return one, other


def _ordered(predictions: Predictions, tasks: list[str]) -> Predictions:
    """Sort rows by time, user, item and labels, and keep the named tasks."""
    columns = [list(predictions.tasks).index(name) for name in tasks]
    labels = predictions.labels[:, columns]
    order = np.lexsort((*labels.T, predictions.item, predictions.user, predictions.time))
    return Predictions(
        tasks={name: predictions.tasks[name] for name in tasks},
        labels=labels[order],
        weights=predictions.weights[:, columns][order],
        scores=predictions.scores[:, columns][order],
        user=predictions.user[order],
        item=predictions.item[order],
        time=predictions.time[order],
        grouped=predictions.grouped,
    )
