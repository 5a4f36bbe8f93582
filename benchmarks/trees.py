"""LightGBM on the very columns that a model of this project is trained on: one booster a task, stopped early."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import NotInstalled
from contract.inputs import Batch
from contract.schema import IdSpec, Part, Schema
from features.batches import BatchReader

LONGEST_TABLE = 64
"""A list becomes a column for each value of its table; lists of larger tables, such as histories, are left out."""
SETTINGS = {"learning_rate": 0.05, "num_leaves": 31, "verbose": -1, "num_threads": 1, "deterministic": True}
ROUNDS, PATIENCE = 2000, 40


def absent() -> list[NotInstalled]:
    """The row in the place of all others where LightGBM is not installed."""
    return [] if find_spec("lightgbm") else [NotInstalled("all: trees on the same columns", "lightgbm")]


@dataclass(frozen=True)
class Rows:
    """A split in memory: inputs [N, D], labels and weights [N, T]."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]


def read_rows(features: Path, schema: Schema, split: str) -> Rows:
    """All rows of a split as LightGBM takes them."""
    batches = list(BatchReader(features / split, schema, 65_536).epoch())
    return Rows(
        np.concatenate([_inputs(batch, schema) for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        np.concatenate([batch.weights for batch in batches]),
    )


def categorical(schema: Schema) -> list[int]:
    """The columns of `Rows.inputs` that hold ids."""
    places: list[int] = []
    first = 0
    for part in (schema.request, schema.candidate):
        places += range(first, first + len(part.ids))
        first += len(part.ids) + len(part.dense) + sum(spec.rows for spec in _short_lists(part))
    return places


def predictions(
    schema: Schema,
    train: Rows,
    valid: Rows,
    judged: Rows,
    *,
    ids_as_numbers: bool = False,
    tasks: Sequence[str] = (),
) -> tuple[NDArray[np.float64], float]:
    """Answers [N, T] on the judged rows, each booster stopped by the valid ones, and the CPU seconds of training.

    With `tasks`, T are those alone, in the schema's order.
    """
    started = time.process_time()
    ids = [] if ids_as_numbers else categorical(schema)
    places = [place for place, task in enumerate(schema.tasks) if not tasks or task.name in tasks]
    answers = [_task(schema, place, ids, train, valid, judged) for place in places]
    return np.stack(answers, axis=1), time.process_time() - started


def _task(
    schema: Schema, place: int, ids: list[int], train: Rows, valid: Rows, judged: Rows
) -> NDArray[np.float64]:  # fmt: skip
    binary = schema.tasks[place].kind == "binary"
    settings = SETTINGS | {"objective": "binary" if binary else "l2", "metric": "auc" if binary else "rmse"}
    import lightgbm  # noqa: PLC0415 - a rival that need not be there

    sets = [_dataset(rows, place, ids) for rows in (train, valid)]
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, sets[0], ROUNDS, valid_sets=[sets[1]], callbacks=[stop])
    return np.asarray(booster.predict(judged.inputs), dtype=np.float64)


def _dataset(rows: Rows, place: int, ids: list[int]) -> Any:
    import lightgbm  # noqa: PLC0415 - as above

    applies = rows.weights[:, place] > 0
    return lightgbm.Dataset(
        rows.inputs[applies], rows.labels[applies, place], weight=rows.weights[applies, place], categorical_feature=ids
    )


def _inputs(batch: Batch, schema: Schema) -> NDArray[np.float32]:
    columns: list[NDArray[np.float32]] = []
    parts = ((batch.inputs.request, schema.request), (batch.inputs.candidate, schema.candidate))
    for inputs, part in parts:
        columns += [inputs.ids.astype(np.float32), inputs.dense]
        ends = np.cumsum(inputs.list_lengths.sum(axis=1))
        for place, spec in enumerate(part.lists):
            if spec in _short_lists(part):
                lengths = inputs.list_lengths[place]
                values = inputs.list_values[ends[place] - lengths.sum() : ends[place]]
                marks = np.zeros((len(lengths), spec.rows), dtype=np.float32)
                marks[np.repeat(np.arange(len(lengths)), lengths), values] = 1.0
                columns.append(marks)
    return np.concatenate(columns, axis=1)


def _short_lists(part: Part) -> list[IdSpec]:
    return [spec for spec in part.lists if spec.rows <= LONGEST_TABLE]
