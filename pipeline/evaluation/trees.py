"""A baseline of boosted trees: LightGBM, where it is installed, on the very columns that the model was trained on.

Shape legend: N rows, T tasks, C columns.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


ReadIds = Literal["categories", "numbers"]
"""How trees read ids."""


class _Columns(NamedTuple):
    """Features as LightGBM takes them: `values` float32 [N, C], of which `categories` are the places of ids."""

    values: NDArray[np.float32]
    categories: list[int]


def can_grow(rows: int) -> bool:
    """Whether LightGBM is installed (``pip install 'moerank[trees]'``) and the rows to judge are not too many."""
    return find_spec("lightgbm") is not None and rows <= MOST_ROWS


class TreeScores(NamedTuple):
    """Scores [N, T], and how each task's trees read ids."""

    scores: NDArray[np.float32]
    ids: dict[str, ReadIds]


class _Trained(NamedTuple):
    """Answers [N], and the metric on held-out rows, larger for better trees."""

    answers: NDArray[np.float64]
    held_out: float


def tree_scores(train: Path, data: Path, schema: Schema, threads: int) -> TreeScores:
    """Train models for each task, stopped early on every tenth row, and score the rows of `data`.

    Numbers are as they were encoded, and of a list the length and the last id count. Ids are read once as categories
    and once as numbers, their rows of the vocabulary: which is better depends on how many values they have, and the
    held-out rows decide, task by task.

    Raises:
        DataError: a column is missing.
    """
    known, judged = EncodedDataset.open(train), EncodedDataset.open(data)
    before = _matrix(known, schema, MOST_TRAINING_ROWS)
    now = _matrix(judged, schema, MOST_ROWS)
    answers, ids = [], {}
    for task in schema.tasks:
        forms: dict[ReadIds, _Trained] = {
            "categories": _of_task(task, known, before, now, threads),
            "numbers": _of_task(task, known, before._replace(categories=[]), now, threads),
        }
        ids[task.name] = max(forms, key=lambda form: forms[form].held_out)
        answers.append(forms[ids[task.name]].answers)
    return TreeScores(np.stack(answers, axis=1).astype(np.float32), ids)


def _of_task(task: TaskSpec, known: EncodedDataset, before: _Columns, now: _Columns, threads: int) -> _Trained:
    import lightgbm  # noqa: PLC0415 - an extra

    table = known.read([label_column(task.name), weight_column(task.name)])
    labels, weights = (table[name].to_numpy()[: len(before.values)] for name in table.column_names)
    rows = np.flatnonzero(weights > 0)
    if rows.size < 2 * _HELD_OUT or np.unique(labels[rows]).size < 2:  # noqa: PLR2004 - nothing to tell apart
        return _Trained(np.full(len(now.values), task.base_rate), 0.0)
    held_out = np.arange(rows.size) % _HELD_OUT == 0
    parts = [
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
    booster = lightgbm.train(settings, parts[0], _ROUNDS, valid_sets=[parts[1]], callbacks=[stop])
    # The objective's own loss: cross-entropy or squared error.
    (loss,) = booster.best_score["valid_0"].values()
    return _Trained(np.asarray(booster.predict(now.values, num_threads=threads), dtype=np.float64), -float(loss))


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
