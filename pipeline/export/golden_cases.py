"""Golden requests of a bundle: real held-out rows with the eager model's answers.

A server answers them before it serves, and so proves that graph, libraries and processor do what training meant.

Shape legend: R requests, N candidate rows, T tasks.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contract.inputs import Batch, Inputs
from features.batches import BatchReader
from models.export_graph.item_shares import PreparedItems
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.export.prepare import prepared_inputs
from serving.store.golden import GoldenCase, write

SIZES = (1, 64)
Answer = Callable[[Inputs], NDArray[np.float32]]


def write_golden(
    ranker: Ranker, rows: Path, path: Path, answer: Answer | None = None, items: PreparedItems | None = None
) -> int:
    """Write one case for each size: the first row's request with that many candidates.

    `items`: as many cases whose candidates are prepared items, for the graph over these.

    `answer` gives the answers [N, T] of a graph that is not meant to equal the eager model; None: that model's.

    Returns:
        How many cases were written.
    """
    request = _first(rows, ranker, 1).inputs.request
    cases = {}
    for size in SIZES:
        batch = _first(rows, ranker, size)
        inputs = Inputs(request, batch.inputs.candidate)
        cases[f"candidates-{batch.rows}"] = _case(ranker, inputs, answer)
        if items is not None:
            prepared, item_rows = prepared_inputs(ranker, items, inputs)
            cases[f"prepared-{batch.rows}"] = _case(ranker, prepared, answer, item_rows)
    write(path, cases)
    return len(cases)


def _case(
    ranker: Ranker, inputs: Inputs, answer: Answer | None, item_rows: NDArray[np.int64] | None = None
) -> GoldenCase:
    answers_NT = _eager(ranker, inputs) if answer is None else answer(inputs)
    names = [task.name for task in ranker.schema.tasks]
    return GoldenCase(inputs, {name: answers_NT[:, column] for column, name in enumerate(names)}, item_rows)


def _first(rows: Path, ranker: Ranker, count: int) -> Batch:
    return next(BatchReader(rows, ranker.schema, count).epoch())


@torch.no_grad()
def _eager(ranker: Ranker, inputs: Inputs) -> NDArray[np.float32]:
    answers_NT: NDArray[np.float32] = (
        ranker.eval().predictions(ranker(TensorInputs.from_numpy(inputs)).logits_BT).numpy()
    )
    return answers_NT
