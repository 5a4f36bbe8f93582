"""Teachers out of a file: any model's predictions, found by user, item and time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.errors import DataError
from features.batches import BatchReader
from pipeline.training.teacher import teacher_id, teacher_of
from pipeline.training.train import train
from pipeline.training.train_config import TeacherConfig, TrainConfig
from tests.encoded_rows import write_dataset
from tests.models.small import small_config, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()
CPU = torch.device("cpu")
KEYS = ["__user", "__item", "__time"]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that know when they were."""
    plain = write_features(tmp_path_factory.mktemp("plain"), SCHEMA)
    folder = tmp_path_factory.mktemp("features")
    for split in ("train", "valid"):
        table = pa.concat_tables([pq.read_table(part) for part in (plain / split).glob("*.parquet")])
        times = pa.array(np.arange(table.num_rows, dtype=np.int64) // 2)
        write_dataset(folder / split, [table.append_column("__time", times)], SCHEMA)
    SCHEMA.save(folder)
    return folder


def taught_by(path: Path, **changes: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"predictions": str(path), "columns": {"prediction.like": "p"}} | changes)


def reader(features: Path) -> BatchReader:
    return BatchReader(features / "train", SCHEMA, 100_000, with_time=True)


@pytest.fixture(scope="module")
def scores(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions of half of the training rows, in another order."""
    rows = reader(features).dataset.read(KEYS)
    some = rows.take(np.random.default_rng(0).permutation(len(rows))[: len(rows) // 2])
    path = tmp_path_factory.mktemp("scores") / "scores.parquet"
    pq.write_table(some.append_column("p", pa.array(np.full(len(some), 0.25))), path)
    return path


def test_rows_of_the_file_are_drawn_to_its_predictions_and_others_learn_from_labels(
    features: Path, scores: Path
) -> None:
    teacher = teacher_of(taught_by(scores, weight=0.5), reader(features), CPU)
    batch = next(reader(features).epoch())
    labels = torch.from_numpy(batch.labels)
    answers, taught = teacher.answers(batch, CPU), teacher.labels(batch, labels)
    assert answers[:, 1].isnan().all()
    known = answers[:, 0].isfinite()
    assert int(known.sum()) == batch.rows // 2
    torch.testing.assert_close(taught[:, 1], labels[:, 1])
    torch.testing.assert_close(taught[~known, 0], labels[~known, 0])
    torch.testing.assert_close(taught[known, 0], 0.5 * labels[known, 0] + 0.125)


def test_a_run_says_how_many_rows_its_file_teaches_and_learns_its_predictions(
    features: Path, scores: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    settings = TrainConfig(epochs=1, batch_size=256, teacher=taught_by(scores, weight=1.0))
    train(features, small_config(gate={"name": "softmax"}), settings, tmp_path / "run", said.append)
    assert any("scores.parquet teaches 1,024 of 2,048 training rows" in line for line in said)


def test_what_cannot_teach_is_refused_by_name(features: Path, scores: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"__user": [1], "__item": [1], "__time": [1], "p": [0.5]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"none of the 2,048 training rows is in .*other\.parquet"):
        teacher_of(taught_by(tmp_path / "other.parquet"), reader(features), CPU)
    with pytest.raises(DataError, match="has no column 'prediction__like'"):
        teacher_of(taught_by(scores, columns={}), reader(features), CPU)
    with pytest.raises(DataError, match=r"train\.teacher\.predictions"):
        teacher_id(taught_by(tmp_path / "nowhere.parquet"))
    with pytest.raises(ValueError, match="either a `run` or a file of `predictions`"):
        TeacherConfig()
