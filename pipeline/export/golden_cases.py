"""Golden requests of a bundle: raw requests made of training rows, and encoded rows, with the eager model's answers.

A server encodes the raw ones, requires the inputs that were recorded, and answers all before it serves. So it proves
that the encoder, the tables, the graph, the libraries and the processor do what training meant.

Shape legend: R requests, N candidate rows, T tasks.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from contract.errors import ExportError
from contract.graph_names import GOLDEN_FILE, RAW_GOLDEN_FILE
from contract.inputs import Batch, Inputs
from features.batches import BatchReader
from features.online.raw_requests import load_requests, request_to_json
from features.online.request_encoder import RankRequest, RequestEncoder
from models.export_graph.item_shares import PreparedItems
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.export.prepare import prepared_inputs
from serving.store.golden import GoldenCase, require_same_inputs, write

SIZES = (1, 64)
SINGLE = 8
"""Raw requests with one candidate."""
Answer = Callable[[Inputs], NDArray[np.float32]]


def write_golden(
    ranker: Ranker,
    rows: Path,
    features: Path,
    out: Path,
    answer: Answer | None = None,
    *,
    items: PreparedItems | None = None,
) -> int:
    """Write encoded cases, the first row's request with as many candidates as each size, and raw cases.

    `items`: as many cases whose candidates are prepared items, for the graph over these.

    `answer` gives the answers [N, T] of a graph that is not meant to equal the eager model; None: that model's.

    Returns:
        How many cases were written.

    Raises:
        ExportError: many candidates are encoded otherwise than one by one.
    """
    request = _first(rows, ranker, 1).inputs.request
    cases: dict[str, GoldenCase] = {}
    for size in SIZES:
        batch = _first(rows, ranker, size)
        inputs = Inputs(request, batch.inputs.candidate)
        cases[f"candidates-{batch.rows}"] = _case(ranker, inputs, answer)
        if items is not None:
            prepared, item_rows = prepared_inputs(ranker, items, inputs)
            cases[f"prepared-{batch.rows}"] = _case(ranker, prepared, answer, item_rows)
    raw = raw_cases(load_requests(features))
    encoder = RequestEncoder.open(features)
    for name, each in raw.items():
        encoded = encoder.encode(each).inputs
        _require_one_by_one(name, each, encoded, encoder)
        cases[name] = _case(ranker, encoded, answer)
    write(out / GOLDEN_FILE, cases)
    text = json.dumps({name: request_to_json(each) for name, each in raw.items()})
    (out / RAW_GOLDEN_FILE).write_text(text + "\n", encoding="utf-8")
    return len(cases)


def raw_cases(requests: list[RankRequest]) -> Mapping[str, RankRequest]:
    """Requests of one candidate, one of many, and the same with nothing but ids and context, which is looked up."""
    if not requests:
        return {}
    items = [each.items[0] for each in requests]
    columns = {name: [each.item_features[name][0] for each in requests] for name in requests[0].item_features}
    many = replace(requests[0], items=items, item_features=columns)
    cases = {f"raw-{place}": each for place, each in enumerate(requests[:SINGLE])}
    return {**cases, "raw-many": many, "raw-looked-up": replace(many, user_features={}, item_features={})}


def _require_one_by_one(name: str, request: RankRequest, together: Inputs, encoder: RequestEncoder) -> None:
    for place, item in enumerate(request.items):
        column = {feature: [values[place]] for feature, values in request.item_features.items()}
        alone = encoder.encode(replace(request, items=[item], item_features=column)).inputs
        for array in ("ids", "dense"):
            if not np.array_equal(getattr(alone.candidate, array)[0], getattr(together.candidate, array)[place]):
                message = f"{name}: candidate {item!r} is encoded otherwise beside others than alone ({array})"
                raise ExportError(message)
        require_same_inputs(name, Inputs(alone.request, alone.candidate), Inputs(together.request, alone.candidate))


def _case(
    ranker: Ranker, inputs: Inputs, answer: Answer | None, item_rows: NDArray[np.int64] | None = None
) -> GoldenCase:
    answers_NT = _eager(ranker, inputs) if answer is None else answer(inputs)
    names = [task.name for task in ranker.schema.tasks]
    rows = inputs.candidate.rows
    # A model that reads nothing of the candidates answers once per request.
    answers_NT = np.broadcast_to(answers_NT, (rows, len(names)))
    return GoldenCase(inputs, {name: answers_NT[:, column] for column, name in enumerate(names)}, item_rows)


def _first(rows: Path, ranker: Ranker, count: int) -> Batch:
    return next(BatchReader(rows, ranker.schema, count).epoch())


@torch.no_grad()
def _eager(ranker: Ranker, inputs: Inputs) -> NDArray[np.float32]:
    answers_NT: NDArray[np.float32] = (
        ranker.eval().predictions(ranker(TensorInputs.from_numpy(inputs)).logits_BT).numpy()
    )
    return answers_NT
