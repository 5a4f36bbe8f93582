"""A baseline of boosted trees: LightGBM, where it is installed, on the very columns that the model was trained on.

Shape legend: N rows, T tasks, C columns.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.columns import label_column, weight_column
from contract.dataset import EncodedDataset
from contract.schema import Schema, TaskSpec

MOST_TRAINING_ROWS = 500_000
MOST_ROWS = 2_000_000
"""Above so many rows to judge, trees are left out: scoring them takes longer than the model does."""
_ROUNDS, _PATIENCE = 300, 20
_HELD_OUT = 10
"""Every tenth training row says when to stop."""
_SETTINGS = {"learning_rate": 0.08, "num_leaves": 31, "verbosity": -1, "deterministic": True, "force_row_wise": True}


@dataclass(frozen=True)
class _Columns:
    """Features as LightGBM takes them: `values` float32 [N, C], of which `categories` are the places of ids."""

    values: NDArray[np.float32]
    categories: list[int]


def can_grow(rows: int) -> bool:
    """Whether LightGBM is installed (``pip install 'moerank[trees]'``) and the rows to judge are not too many."""
    return find_spec("lightgbm") is not None and rows <= MOST_ROWS


def tree_scores(train: Path, data: Path, schema: Schema, threads: int) -> NDArray[np.float32]:
    """Train one model a task, stopped early on every tenth row, and score the rows of `data`: [N, T].

    Ids are categories, numbers are as they were encoded, and of a list the length and the last id count.

    Raises:
        DataError: a column is missing.
    """
    known, mine = EncodedDataset.open(train), EncodedDataset.open(data)
    before = _matrix(known, schema, MOST_TRAINING_ROWS)
    now = _matrix(mine, schema, MOST_ROWS)
    scores = [_of_task(task, known, before, now, threads) for task in schema.tasks]
    return np.stack(scores, axis=1).astype(np.float32)


def _of_task(
    task: TaskSpec, known: EncodedDataset, before: _Columns, now: _Columns, threads: int
) -> NDArray[np.float64]:  # fmt: skip
    import lightgbm  # noqa: PLC0415 - an extra

    table = known.read([label_column(task.name), weight_column(task.name)])
    labels, weights = (table[name].to_numpy()[: len(before.values)] for name in table.column_names)
    rows = np.flatnonzero(weights > 0)
    if rows.size < 2 * _HELD_OUT or np.unique(labels[rows]).size < 2:  # noqa: PLR2004 - nothing to tell apart
        return np.full(len(now.values), task.base_rate)
    held_out = np.arange(rows.size) % _HELD_OUT == 0
    made = [
        lightgbm.Dataset(
            before.values[part],
            labels[part],
            weight=weights[part],
            categorical_feature=before.categories,
            params={"verbosity": -1},
        )
        for part in (rows[~held_out], rows[held_out])
    ]
    settings: dict[str, Any] = {**_SETTINGS, "objective": task.kind, "num_threads": threads, "seed": 0}
    stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
    booster = lightgbm.train(settings, made[0], _ROUNDS, valid_sets=[made[1]], callbacks=[stop])
    return np.asarray(booster.predict(now.values, num_threads=threads), dtype=np.float64)


def _matrix(dataset: EncodedDataset, schema: Schema, most: int) -> _Columns:
    columns: list[NDArray[Any]] = []
    categories = []
    for spec in schema.features:
        column = dataset.read([spec.name])[spec.name].combine_chunks()
        if spec.kind == "id_list":
            offsets, ids = column.offsets.to_numpy(), column.values.to_numpy()
            lengths = np.diff(offsets)
            last = np.zeros(lengths.size, dtype=np.int64)
            last[lengths > 0] = ids[offsets[1:][lengths > 0] - 1]
            columns += [lengths, last]
        else:
            columns.append(column.to_numpy())
        if spec.kind != "dense":
            categories.append(len(columns) - 1)
    values = np.stack([column[:most].astype(np.float32) for column in columns], axis=1)
    return _Columns(values, categories)
