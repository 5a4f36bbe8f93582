"""Predictions as files, and without users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contract.errors import DataError
from features.source.parquet_files import write_table
from pipeline.evaluation.prediction_file import load_predictions
from tests.pipeline.conftest import Judged


def test_saved_predictions_load_equal(judged: Judged, tmp_path: Path) -> None:
    first = load_predictions(judged.out / "predictions.parquet")
    first.save(tmp_path / "again.parquet")
    again = load_predictions(tmp_path / "again.parquet")
    assert again.tasks == {"like": "binary", "rating": "regression"}
    for name in ("labels", "weights", "scores", "user", "item", "time"):
        assert np.array_equal(getattr(again, name), getattr(first, name)), name
    assert first.time.tolist() == list(range(2000))


def test_a_file_of_another_tool_needs_no_weights_and_no_time(tmp_path: Path) -> None:
    columns = {
        "__user": pa.array([1, 2], pa.int64()),
        "__item": pa.array([3, 4], pa.int32()),
        "label__like": pa.array([0, 1], pa.int8()),
        "prediction__like": pa.array([0.25, 0.75], pa.float64()),
    }
    write_table(pa.table(columns), tmp_path / "p.parquet")
    found = load_predictions(tmp_path / "p.parquet")
    assert found.tasks == {"like": "binary"}
    assert found.weights.tolist() == [[1.0], [1.0]]
    assert found.scores.dtype == np.float32


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("user,item\n")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        load_predictions(tmp_path / "p.parquet")


def test_data_without_users_resample_rows(judged: Judged) -> None:
    predictions = replace(load_predictions(judged.out / "predictions.parquet"), grouped=False)
    users = predictions.users()
    assert users.count == 2000
    assert not predictions.by_task(users)["like"].grouped
