"""Another model as the teacher of this one: its answers stand beside the labels.

Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, temperature 1. The
weighted sum of both losses is the loss of the weighted sum of label and answer, as cross-entropy is linear in the label
and squared error is up to a constant. So a sparse model can learn from its dense twin, or from LightGBM's scores.

Shape legend: B rows, T tasks, P predictions of a file.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contract.columns import ITEM_HASH, TIME, USER_HASH
from contract.errors import DataError
from contract.hashing import mix
from contract.inputs import Batch
from contract.schema import Schema
from contract.sha256 import sha256_of
from features.batches import BatchReader
from models.ranker_tensors import TensorInputs
from pipeline.evaluation.prediction_file import keyed_scores
from pipeline.training.checkpoint import load_ranker, weights_id
from pipeline.training.train_config import TeacherConfig

Hashes = NDArray[np.uint64]


class Teacher(ABC):
    """Draws labels towards another model's answers."""

    def __init__(self, weight: float) -> None:
        """Take the share of the answers in the loss."""
        self.weight = weight

    @abstractmethod
    def answers(self, batch: Batch, device: torch.device) -> Tensor:
        """The other model's answers [B, T] on a device; NaN where it has none."""

    @torch.no_grad()
    def labels(self, batch: Batch, labels_BT: Tensor) -> Tensor:
        """A batch's labels [B, T] drawn towards the teacher's answers by its weight; NaN stays NaN."""
        answers_BT = self.answers(batch, labels_BT.device)
        return labels_BT + self.weight * torch.where(answers_BT.isnan(), 0.0, answers_BT - labels_BT)


class RunTeacher(Teacher):
    """The best epoch of a run, on the device of the one that learns."""

    def __init__(self, run: Path, weight: float, schema: Schema, device: torch.device) -> None:
        """Load the run.

        Raises:
            DataError: there is no checkpoint.
            SchemaMismatchError: the run was trained on other features.
        """
        super().__init__(weight)
        self._ranker = load_ranker(run, schema).to(device).eval().requires_grad_(requires_grad=False)

    def answers(self, batch: Batch, device: torch.device) -> Tensor:
        """Run the model."""
        inputs = TensorInputs.from_numpy(batch.inputs).to(device)
        return self._ranker.predictions(self._ranker(inputs).logits_BT)


class FileTeacher(Teacher):
    """Predictions of a file, found by user, item and time; of rows that stand in it twice, the first."""

    def __init__(self, config: TeacherConfig, path: Path, rows: BatchReader) -> None:
        """Read the file.

        Raises:
            DataError: it cannot be read, lacks a column, or has none of the training rows.
        """
        super().__init__(config.weight)
        tasks = [task.name for task in rows.schema.tasks]
        scores = keyed_scores(path, tasks, config.columns)
        self._keys, first = np.unique(row_keys(scores.user, scores.item, scores.time), return_index=True)
        # One row more for those that the file does not have.
        self._scores_PT = np.vstack([scores.scores_NT[first], np.full((1, len(tasks)), np.nan, dtype=np.float32)])
        known = self._known(rows)
        if not known.any():
            message = (
                f"none of the {len(known):,} training rows is in {path} by user, item and time; name its columns under "
                "train.teacher.columns (times are timestamps, or milliseconds since 1970)"
            )
            raise DataError(message)
        self.remark = f"{path.name} teaches {int(known.sum()):,} of {len(known):,} training rows"

    def answers(self, batch: Batch, device: torch.device) -> Tensor:
        """Look the rows up."""
        assert batch.time is not None  # noqa: S101 the reader was asked for times; this tells the type checker
        places = self._places(row_keys(batch.user, batch.item, batch.time))
        return torch.from_numpy(self._scores_PT[places]).to(device)

    def _places(self, keys: Hashes) -> NDArray[np.intp]:
        places = np.searchsorted(self._keys, keys)
        inside = self._keys.take(places, mode="clip") == keys
        return np.where(inside, places, len(self._keys))

    def _known(self, rows: BatchReader) -> NDArray[np.bool_]:
        table = rows.dataset.read([USER_HASH, ITEM_HASH, TIME])
        user, item, time = (table[name].to_numpy() for name in (USER_HASH, ITEM_HASH, TIME))
        return self._places(row_keys(user, item, time)) < len(self._keys)


def teacher_of(config: TeacherConfig, rows: BatchReader, device: torch.device) -> Teacher:
    """The teacher that the settings name, for the rows of a reader.

    Raises:
        DataError: as `RunTeacher` and `FileTeacher`.
        SchemaMismatchError: a run that was trained on other features.
    """
    if config.predictions is not None:
        return FileTeacher(config, config.predictions, rows)
    assert config.run is not None  # noqa: S101 the settings have either; this tells the type checker
    return RunTeacher(config.run, config.weight, rows.schema, device)


def teacher_id(config: TeacherConfig) -> str:
    """What tells a teacher from others under the same path.

    Raises:
        DataError: there is no such run or file.
    """
    if config.run is not None:
        return weights_id(config.run)
    assert config.predictions is not None  # noqa: S101 as in `teacher_of`
    try:
        return sha256_of(config.predictions)
    except OSError as error:
        message = f"train.teacher.predictions: {config.predictions} cannot be read: {error}"
        raise DataError(message) from error


def row_keys(user: Hashes, item: Hashes, time: NDArray[np.int64]) -> Hashes:
    """What tells rows apart [B], of the hashes of user and item and the time in milliseconds."""
    return mix(user ^ mix(item ^ mix(time.astype(np.int64).view(np.uint64))))
