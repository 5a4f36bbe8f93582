"""LightGBM as a teacher: its answers on training rows that it was not trained on, for `train.teacher.predictions`.

A booster's answers on its own training rows know their labels. So the rows are dealt into folds, and each fold is
answered by boosters of the others (as stacking does: Wolpert 1992, "Stacked Generalization").
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.trees import Rows, predictions, read_rows
from contract.columns import ITEM_HASH, TIME, USER_HASH, prediction_column
from contract.dataset import EncodedDataset
from contract.schema import Schema
from pipeline.flow.steps import build_features
from pipeline.project.project_config import ProjectConfig

FOLDS = 3


def tree_teacher(config: ProjectConfig, tasks: Sequence[str] = ()) -> Path:
    """The file of a table's answers for some tasks or all, made once for its features; ids are read as numbers."""
    fingerprint = build_features(config).result["fingerprint"]
    path = config.root / f"tree-teacher-{'-'.join([fingerprint, *tasks])}.parquet"
    if not path.is_file():
        schema = Schema.load(config.features_dir)
        train, valid = (read_rows(config.features_dir, schema, name) for name in ("train", "valid"))
        answers_NT = unseen_answers(schema, train, valid, tasks)
        pq.write_table(keyed_answers(config.features_dir / "train", schema, answers_NT, tasks), path)
    return path


def unseen_answers(schema: Schema, train: Rows, valid: Rows, tasks: Sequence[str] = ()) -> NDArray[np.float64]:
    """Answers [N, T] to all training rows, each by boosters of the other folds, which the valid rows stop."""
    return answers_of_folds(schema, train, valid, tasks)[0]


def answers_of_folds(
    schema: Schema, train: Rows, valid: Rows, tasks: Sequence[str] = ()
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same, and answers to the valid rows: the mean of all folds' boosters."""
    fold_N = np.random.default_rng(0).integers(0, FOLDS, len(train.labels))
    count = len(tasks or schema.tasks)
    train_NT, valid_NT = np.empty((len(fold_N), count)), np.zeros((len(valid.labels), count))
    for fold in range(FOLDS):
        unseen_N = fold_N == fold
        others, judged = _rows(train, ~unseen_N), _joined(_rows(train, unseen_N), valid)
        answers_NT, _ = predictions(schema, others, valid, judged, ids_as_numbers=True, tasks=tasks)
        train_NT[unseen_N] = answers_NT[: unseen_N.sum()]
        valid_NT += answers_NT[unseen_N.sum() :] / FOLDS
    return train_NT, valid_NT


def _rows(rows: Rows, chosen_N: NDArray[np.bool_]) -> Rows:
    return Rows(rows.inputs[chosen_N], rows.labels[chosen_N], rows.weights[chosen_N])


def _joined(one: Rows, other: Rows) -> Rows:
    """The rows of both, one after the other."""
    parts = ("inputs", "labels", "weights")
    return Rows(*(np.concatenate([getattr(one, part), getattr(other, part)]) for part in parts))


def keyed_answers(path: Path, schema: Schema, answers_NT: NDArray[np.float64], tasks: Sequence[str] = ()) -> pa.Table:
    """Answers beside the keys of a split's rows; T are `tasks`, or all."""
    keys = EncodedDataset.open(path).read([USER_HASH, ITEM_HASH, TIME])
    taught = [task.name for task in schema.tasks if not tasks or task.name in tasks]
    columns = {prediction_column(name): answers_NT[:, t] for t, name in enumerate(taught)}
    return pa.table({name: keys[name] for name in keys.column_names} | columns)
