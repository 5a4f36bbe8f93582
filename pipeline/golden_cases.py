"""Golden requests of a bundle: real held-out rows with the eager model's answers.

A server answers them before it serves, and so proves that graph, libraries and processor do what training meant.

Shape legend: R requests, N candidate rows, T tasks.
"""

from pathlib import Path

import torch

from features.batches import BatchReader
from features.inputs import Batch, Inputs
from models.ranker import Ranker
from models.tensors import TensorInputs
from serving.golden import GoldenCase, write

SIZES = (1, 64)


def write_golden(ranker: Ranker, rows: Path, path: Path) -> int:
    """Write one case for each size: the first row's request with that many candidates.

    Returns:
        How many cases were written.
    """
    request = _first(rows, ranker, 1).inputs.request
    cases = {}
    for size in SIZES:
        batch = _first(rows, ranker, size)
        cases[f"candidates-{batch.rows}"] = _case(ranker, Inputs(request, batch.inputs.candidate))
    write(path, cases)
    return len(cases)


def _first(rows: Path, ranker: Ranker, count: int) -> Batch:
    return next(BatchReader(rows, ranker.schema, count).epoch())


@torch.no_grad()
def _case(ranker: Ranker, inputs: Inputs) -> GoldenCase:
    answers_NT = ranker.eval().predictions(ranker(TensorInputs.from_numpy(inputs)).logits_BT).numpy()
    names = [task.name for task in ranker.schema.tasks]
    return GoldenCase(inputs, {name: answers_NT[:, column] for column, name in enumerate(names)})
