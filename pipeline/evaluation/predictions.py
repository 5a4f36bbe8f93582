"""Predictions of a model on labelled rows: made by the served graph, kept as Parquet, aligned for comparison.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import (
    ITEM_HASH,
    TIME,
    USER_HASH,
    label_column,
    prediction_column,
    weight_column,
)
from contract.dataset import SCHEMA_KEY, EncodedDataset
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

    Rows with weight 0 for a task are left out of that task. `grouped` is false where the data have no users, `keyed`
    where nothing tells rows apart but their order. `schema_fingerprint` is that of the model, empty for another tool's.
    """

    tasks: dict[str, Kind]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    scores: NDArray[np.float32]
    user: NDArray[np.uint64]
    item: NDArray[np.uint64]
    time: NDArray[np.int64]
    grouped: bool = True
    keyed: bool = True
    schema_fingerprint: str = ""

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
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        if self.schema_fingerprint:
            table = table.replace_schema_metadata({SCHEMA_KEY: self.schema_fingerprint})
        write_table(table, path)


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
        schema_fingerprint=schema.fingerprint(),
    )


def _read_times(data: EncodedDataset) -> NDArray[np.int64]:
    """The rows' times in the order of reading; zeros where the data have none."""
    if TIME not in data.column_names:
        return np.zeros(data.rows, dtype=np.int64)
    times: NDArray[np.int64] = data.read([TIME])[TIME].to_numpy()
    return times
