"""A trained run as the teacher of another: its answers stand beside the labels.

Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, temperature 1. The
weighted sum of both losses is the loss of the weighted sum of label and answer, as cross-entropy is linear in the label
and squared error is up to a constant. So a sparse model can learn from its dense twin, or tonight's from last night's.
"""

import torch
from torch import Tensor

from contract.inputs import Batch
from contract.schema import Schema
from models.ranker_tensors import TensorInputs
from pipeline.training.checkpoint import load_ranker
from pipeline.training.train_config import TeacherConfig


class Teacher:
    """The best epoch of a run, on the device of the one that learns."""

    def __init__(self, config: TeacherConfig, schema: Schema, device: torch.device) -> None:
        """Load the run.

        Raises:
            DataError: there is no checkpoint.
            SchemaMismatchError: the run was trained on other features.
        """
        self.weight = config.weight
        self._ranker = load_ranker(config.run, schema).to(device).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def labels(self, batch: Batch, labels_BT: Tensor) -> Tensor:
        """A batch's labels [B, T] drawn towards the teacher's answers by its weight; NaN stays NaN."""
        inputs = TensorInputs.from_numpy(batch.inputs).to(labels_BT.device)
        answers_BT = self._ranker.predictions(self._ranker(inputs).logits_BT)
        return labels_BT + self.weight * (answers_BT - labels_BT)
