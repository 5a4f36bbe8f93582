"""Predictions of a model on labelled rows: made by the served graph, kept as Parquet, aligned for comparison.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import (
    ITEM_HASH,
    KEY,
    LIST,
    TIME,
    USER_HASH,
    label_column,
    prediction_column,
    task_columns,
    weight_column,
)
from contract.dataset import EncodedDataset, EncodedWith
from contract.errors import DataError
from contract.inputs import Batch
from contract.schema import Schema
from features.batches import BatchReader
from features.source.parquet_files import write_table
from pipeline.evaluation.intervals import Users
from pipeline.evaluation.task_rows import TaskRows
from serving.graph.engine import Engine

BATCH_ROWS = 2048
"""A call's activations stay in a core's cache: 4,096 rows take a twentieth longer each, 1,024 have more calls."""
STRETCH_BATCHES = 128
"""Batches that make a stretch: a quarter of a million rows."""
Kind = Literal["binary", "regression"]
Progress = Callable[[int, int], None]
"""Called with the rows done and the rows in all."""


@dataclass(frozen=True)
class Predictions:
    """Labels, weights and scores float32 [N, T], and the hashes uint64 [N] and time in ms int64 [N] of each row.

    Rows with weight 0 for a task are left out of that task. `grouped` is false where the data have no users, `keyed`
    where nothing tells rows apart but their order. `schema_fingerprint` is that of the model, empty for another tool's,
    and `encoding` the digest of what encoded the rows. `lists` [N] says which rows are ranked together, where that is
    not by user; `key` [N] is the hash of the row's key in its source, and `place` [N] where each row stood before some
    were taken or brought into another order.
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
    encoding: str = ""
    lists: NDArray[np.uint64] | None = None
    key: NDArray[np.uint64] | None = None
    place: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.user.size)

    def users(self) -> Users:
        """The users to resample; every row by itself where the data have none."""
        return Users.of_hashes(self.user) if self.grouped else Users.apart(self.rows)

    def with_scores(self, scores: NDArray[np.float32]) -> Self:
        """The same rows scored by something else, [N, T]."""
        return replace(self, scores=scores)

    def by_task(self, users: Users, rows: NDArray[np.bool_] | None = None) -> dict[str, TaskRows]:
        """The rows of each task to which it applies, within the chosen `rows` [N]."""
        chosen = np.ones(self.rows, dtype=bool) if rows is None else rows
        task_rows = {}
        for column, (name, kind) in enumerate(self.tasks.items()):
            mine = chosen & (self.weights[:, column] > 0)
            labels, scores = self.labels[mine, column], self.scores[mine, column]
            weights = self.weights[mine, column].astype(np.float64)
            equal = weights.size == 0 or bool((weights == weights[0]).all())
            lists = None if self.lists is None else Users.of(self.lists[mine])
            grouped = self.grouped or lists is not None
            task_rows[name] = TaskRows(
                name, kind, labels, scores, users.take(mine), grouped, None if equal else weights, lists
            )
        return task_rows

    def of_tasks(self, names: Sequence[str]) -> Self:
        """The same rows with some of the tasks, in this order."""
        columns = [list(self.tasks).index(name) for name in names]
        matrices: dict[str, Any] = {name: getattr(self, name)[:, columns] for name in ("labels", "weights", "scores")}
        return replace(self, tasks={name: self.tasks[name] for name in names}, **matrices)

    def take(self, rows: NDArray[Any]) -> Self:
        """Some of the rows, by number or by mask."""
        return replace(self, **{name: array[rows] for name, array in self.by_row().items()})

    def by_row(self) -> dict[str, Any]:
        """All that is by row, by its name."""
        arrays = {name: getattr(self, name) for name in _BY_ROW}
        return {name: array for name, array in arrays.items() if array is not None}

    def about(self) -> dict[str, Any]:
        """All that is not by row, as JSON; `nothing` takes it."""
        return {
            "tasks": dict(self.tasks), "grouped": self.grouped, "keyed": self.keyed,
            "schema_fingerprint": self.schema_fingerprint, "encoding": self.encoding,
        }  # fmt: skip

    @classmethod
    def nothing(cls, about: dict[str, Any]) -> Self:
        """No rows of what `about` says."""
        values = np.zeros((0, len(about["tasks"])), dtype=np.float32)
        keys = np.zeros(0, dtype=np.uint64)
        time = np.zeros(0, dtype=np.int64)
        return cls(labels=values, weights=values, scores=values, user=keys, item=keys, time=time, **about)

    def table(self) -> pa.Table:
        """`__user`, `__item`, `__time`, and label, weight and prediction columns for each task."""
        columns: dict[str, NDArray[Any]] = {USER_HASH: self.user, ITEM_HASH: self.item, TIME: self.time}
        for column, name in enumerate(self.tasks):
            columns[label_column(name)] = self.labels[:, column]
            columns[weight_column(name)] = self.weights[:, column]
            columns[prediction_column(name)] = self.scores[:, column]
        columns |= {} if self.key is None else {KEY: self.key}
        columns |= {} if self.lists is None else {LIST: self.lists}
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        if not self.schema_fingerprint:
            return table
        encoded_with = EncodedWith(schema_fingerprint=self.schema_fingerprint, encoding=self.encoding)
        return table.replace_schema_metadata(encoded_with.metadata())

    def of_table(self, table: pa.Table) -> Self:
        """The rows of a table that `table` made, with all that is not by row as here."""
        names = (("labels", label_column), ("weights", weight_column), ("scores", prediction_column))
        matrices: dict[str, Any] = {
            field: np.stack([table[name(task)].to_numpy() for task in self.tasks], axis=1) for field, name in names
        }
        keys: dict[str, Any] = {
            field: table[name].to_numpy()
            for field, name in (("user", USER_HASH), ("item", ITEM_HASH), ("time", TIME), ("key", KEY), ("lists", LIST))
            if name in table.column_names
        }
        return replace(self, **matrices, **keys)

    def save(self, path: Path) -> None:
        """Write Parquet with the columns of `table`."""
        write_table(self.table(), path)


_BY_ROW = ("labels", "weights", "scores", "user", "item", "time", "lists", "key", "place")


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Stretches of rows as one; a task is binary where it is in all of them.

    Raises:
        DataError: there are no stretches.
    """
    if not parts:
        message = "there are no rows to evaluate on; at least one is needed"
        raise DataError(message)
    first = parts[0]
    if len(parts) == 1:
        return first
    tasks: dict[str, Kind] = {
        name: "binary" if all(part.tasks[name] == "binary" for part in parts) else "regression" for name in first.tasks
    }
    arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in first.by_row()}
    return replace(first, tasks=tasks, **arrays)


def predict(engine: Engine, data: Path, schema: Schema, progress: Progress | None = None) -> Predictions:
    """Score every row of an encoded Parquet with the served graph, each row as a request of its own.

    Raises:
        DataError: the rows lack a column of the schema, are damaged, or there are none.
        SchemaMismatchError: they were encoded with another schema.
        PredictionError: the graph fails or answers with a number that is not finite.
    """
    return joined(list(predict_stretches(engine, data, schema, progress)))


def unscored_rows(data: Path, schema: Schema) -> Predictions:
    """All rows of an encoded Parquet in the order of reading, with scores of 0.

    Raises:
        DataError: as `predict`.
        SchemaMismatchError: as `predict`.
    """
    dataset = EncodedDataset.open(data)
    dataset.require(schema)
    tasks = [task.name for task in schema.tasks]
    names = [*task_columns(tasks), USER_HASH, ITEM_HASH]
    missing = [name for name in names if name not in dataset.column_names]
    if missing:
        message = f"{data} lacks column {missing[0]!r} of the schema; rebuild the features"
        raise DataError(message)
    times = [TIME] if TIME in dataset.column_names else []
    table = dataset.read([*names, *times])
    labels, weights = (
        np.stack([table[name(task)].to_numpy() for task in tasks], axis=1) for name in (label_column, weight_column)
    )
    return Predictions(
        tasks={task.name: task.kind for task in schema.tasks},
        labels=labels,
        weights=weights,
        scores=np.zeros_like(labels),
        user=table[USER_HASH].to_numpy(),
        item=table[ITEM_HASH].to_numpy(),
        time=table[TIME].to_numpy() if times else np.zeros(table.num_rows, dtype=np.int64),
        grouped=bool(schema.user_key),
    )


def predict_stretches(
    engine: Engine,
    data: Path,
    schema: Schema,
    progress: Progress | None = None,
    *,
    rows: tuple[int, int] | None = None,
    take: Callable[[int], bool] = lambda _: True,
) -> Iterator[Predictions]:
    """As `predict`, a stretch of rows at a time, in the order of reading.

    `rows` are the first row to score and the one after the last, whole batches; None: all. `take` is asked before each
    batch with the row after its last one, and ends the stretches by saying no.
    """
    reader = BatchReader(data, schema, BATCH_ROWS)
    if reader.total_rows == 0:
        message = f"{data} has no rows to evaluate on; at least one is needed"
        raise DataError(message)
    begin, end = rows or (0, reader.total_rows)
    fingerprint = schema.fingerprint()
    encoding = "" if reader.dataset.encoded_with is None else reader.dataset.encoded_with.encoding
    waiting: list[Predictions] = []
    done = begin

    def stretch() -> Predictions:
        predictions = joined(waiting)
        times = _times(reader.dataset, done - predictions.rows, done)
        return replace(predictions, schema_fingerprint=fingerprint, encoding=encoding, time=times)

    for batch in reader.epoch(start=begin, stop=end):
        if not take(done + batch.rows):
            break
        waiting.append(_scored(engine, batch, schema))
        done += batch.rows
        if progress is not None:
            progress(done - begin, end - begin)
        if len(waiting) == STRETCH_BATCHES:
            yield stretch()
            waiting = []
    if waiting:
        yield stretch()


def _scored(engine: Engine, batch: Batch, schema: Schema) -> Predictions:
    answers = engine.predict(batch.inputs)
    return Predictions(
        tasks={task.name: task.kind for task in schema.tasks},
        labels=batch.labels,
        weights=batch.weights,
        scores=np.stack([answers[task.name] for task in schema.tasks], axis=1),
        user=batch.user,
        item=batch.item,
        time=np.zeros(batch.rows, dtype=np.int64),
        grouped=bool(schema.user_key),
    )


def _times(data: EncodedDataset, begin: int, end: int) -> NDArray[np.int64]:
    """The times of a stretch of rows; zeros where the data have none."""
    return read_stretch(data, TIME, begin, end) if TIME in data.column_names else np.zeros(end - begin, dtype=np.int64)


def read_stretch(data: EncodedDataset, name: str, begin: int, end: int) -> NDArray[Any]:
    """A column of a stretch of rows in the order of reading, without the row groups before and after it."""
    ends = np.cumsum([group.rows for group in data.row_groups])
    first, last = (int(np.searchsorted(ends, place, side="right")) for place in (begin, end - 1))
    values: NDArray[Any] = data.read_groups(data.row_groups[first : last + 1], [name])[name].to_numpy()
    skipped = begin - (int(ends[first - 1]) if first else 0)
    return values[skipped : skipped + end - begin]
