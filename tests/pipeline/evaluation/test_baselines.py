"""Baselines learned from encoded training rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import DataError
from contract.schema import Schema, TaskSpec
from features.source.parquet_files import write_table
from pipeline.evaluation.baselines import SMOOTHING, TrainingRows, read_training
from tests.encoded_rows import stamped

SCHEMA = Schema(features=(), tasks=(TaskSpec(name="like", kind="binary"), TaskSpec(name="stars", kind="regression")))


@pytest.fixture
def training(tmp_path: Path) -> TrainingRows:
    columns = {
        "__user": pa.array([1, 1, 2, 2**64 - 1], pa.uint64()),
        "__item": pa.array([9, 9, 9, 5], pa.uint64()),
        "label__like": pa.array([1, 0, 1, 0], pa.float32()),
        "weight__like": pa.array([1, 1, 2, 1], pa.float32()),
        "label__stars": pa.array([4, 2, 0, 3], pa.float32()),
        "weight__stars": pa.array([1, 1, 0, 1], pa.float32()),
    }
    write_table(stamped(pa.table(columns), SCHEMA), tmp_path / "train.parquet")
    return read_training(tmp_path / "train.parquet", SCHEMA)


def test_means_are_over_the_rows_to_which_a_task_applies(training: TrainingRows) -> None:
    assert training.means().tolist() == [0.5, 3.0]
    assert training.constant(3).tolist() == [[0.5, 3.0]] * 3


def test_popularity_is_the_items_smoothed_mean_and_the_mean_of_all_for_new_items(training: TrainingRows) -> None:
    found = training.popularity(np.array([5, 9, 7], np.uint64))
    assert found.dtype == np.float32
    expected = [
        [(0 + SMOOTHING * 0.5) / (1 + SMOOTHING), 3.0],
        [(2 + SMOOTHING * 0.5) / (3 + SMOOTHING), (6 + SMOOTHING * 3.0) / (2 + SMOOTHING)],
        [0.5, 3.0],
    ]
    assert found == pytest.approx(np.array(expected), rel=1e-6)


def test_training_rows_are_counted_by_key(training: TrainingRows) -> None:
    assert training.users.rows_of(np.array([2**64 - 1, 3, 1], np.uint64)).tolist() == [1, 0, 2]
    assert training.items.rows_of(np.array([9, 0], np.uint64)).tolist() == [3, 0]


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as Parquet: there is nothing"):
        read_training(tmp_path / "none.parquet", SCHEMA)
    names = ["__user", "__item", "label__like", "weight__like", "label__stars", "weight__stars"]
    write_table(pa.table({name: pa.array([], pa.float32()) for name in names}), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="has no rows, but baselines are learned from it"):
        read_training(tmp_path / "empty.parquet", SCHEMA)
