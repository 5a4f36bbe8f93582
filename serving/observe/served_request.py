"""Served requests as rows of the log: what was asked, what was answered, and the features that it was answered with.

Requests of one version become one table at once, which costs a fraction of one table per request. Shape legend:
R requests, N candidate rows of all of them.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from contract.columns import prediction_column
from contract.dataset import EncodedWith
from contract.inputs import Inputs, PartInputs
from contract.schema import Part, Schema
from features.online.request_encoder import EncodedRequest, RankRequest
from features.served.log_format import AT_MS, CONTEXT, ITEM, REQUEST_ID, USER, feature_column, one_row_a_request
from serving.graph.answer import RankAnswer
from serving.graph.batched_graph import joined
from serving.graph.served_model import RankingModel


@dataclass(frozen=True)
class ServedRequest:
    """A request with its answer, at `at_ms` milliseconds since 1970."""

    model: RankingModel
    request: RankRequest
    encoded: EncodedRequest | None
    """None where no model was asked: a fallback."""
    answer: RankAnswer
    at_ms: int

    @property
    def rows(self) -> int:
        """How many candidates it had."""
        return len(self.answer.scores)


@dataclass(frozen=True)
class LoggedAnswer:
    """As `ServedRequest`, without the model: the inputs are those of the general graph."""

    request: RankRequest
    inputs: Inputs
    answer: RankAnswer
    at_ms: int


def table_of(batch: Sequence[ServedRequest]) -> pa.Table:
    """Rows of requests to one version."""
    answers = [LoggedAnswer(served.request, features_of(served), served.answer, served.at_ms) for served in batch]
    return answers_table(batch[0].model.bundle.schema, answers)


def answers_table(schema: Schema, batch: Sequence[LoggedAnswer]) -> pa.Table:
    """One row per request; lists of the candidates' ids, predictions and features in their order."""
    answers, inputs = [logged.answer for logged in batch], [logged.inputs for logged in batch]
    requests: dict[str, pa.Array] = {
        REQUEST_ID: pa.array([answer.request_id for answer in answers]),
        AT_MS: pa.array([logged.at_ms for logged in batch]),
        "version": pa.array([answer.version for answer in answers], pa.int64()),
        "arm": pa.array([answer.arm for answer in answers]),
        "score_name": pa.array([answer.score_name for answer in answers]),
        "score_version": pa.array([answer.score_version for answer in answers]),
        "exploration": pa.array([answer.exploration for answer in answers]),
        "stage": pa.array([answer.stage for answer in answers]),
        USER: pa.array([logged.request.user for logged in batch], _key_type(schema, schema.user_key, pa.string())),
        CONTEXT: pa.array([json.dumps(dict(logged.request.context), sort_keys=True) for logged in batch]),
        **_features(schema.request, joined([each.request for each in inputs])),
    }
    items = [item for logged in batch for item in logged.request.items]
    candidates: dict[str, pa.Array] = {
        ITEM: pa.array(items, _key_type(schema, schema.item_key, pa.int64())),
        "position": pa.array(np.concatenate([_positions(answer) for answer in answers])),
        "score": pa.array(np.concatenate([answer.scores for answer in answers])),
        "propensity": pa.array(np.concatenate([_propensities(answer) for answer in answers]), from_pandas=True),
        **{
            prediction_column(task.name): pa.array(np.concatenate([a.predictions[task.name] for a in answers]))
            for task in schema.tasks
        },
        **_features(schema.candidate, joined([each.candidate for each in inputs])),
    }
    encoded_with = EncodedWith(schema_fingerprint=schema.fingerprint(), encoding="served")
    counts = [len(answer.scores) for answer in answers]
    return one_row_a_request(requests, candidates, counts, encoded_with.metadata())


def by_version(batch: Iterable[ServedRequest]) -> dict[tuple[str, int], list[ServedRequest]]:
    """Served requests by model and version."""
    by_model: dict[tuple[str, int], list[ServedRequest]] = {}
    for served in batch:
        by_model.setdefault((served.model.name, served.model.version), []).append(served)
    return by_model


def with_features(served: ServedRequest) -> ServedRequest:
    """As it is, or for a fallback, which looked at none, with the features that the model would have been given.

    Raises:
        RequestError: the request of a fallback cannot be encoded.
    """
    return served if served.encoded is not None else replace(served, encoded=served.model.encode(served.request))


def features_of(served: ServedRequest) -> Inputs:
    """All features, those of prepared items out of the table that the graph had them from.

    Raises:
        RequestError: as `with_features`.
    """
    encoded = served.encoded or served.model.encode(served.request)
    return encoded.inputs if not encoded.rows_of else served.model.whole_inputs(encoded)


def _positions(answer: RankAnswer) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Each candidate's place in the ranking [n]; -1 for those that the answer does not name."""
    positions = np.full(len(answer.scores), -1, np.int32)
    positions[answer.order] = np.arange(len(answer.order), dtype=np.int32)
    return positions


def _propensities(answer: RankAnswer) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Each candidate's probability [n] to stand where it stands; NaN without exploration, or without a place."""
    propensities = np.full(len(answer.scores), np.nan, np.float32)
    if answer.propensities is not None:
        propensities[answer.order] = answer.propensities
    return propensities


def _key_type(schema: Schema, key: str, otherwise: pa.DataType) -> pa.DataType:
    kinds = {spec.name: pa.string() if spec.dtype == "string" else pa.int64() for spec in schema.keys}
    return kinds.get(key, otherwise)


def _features(part: Part, inputs: PartInputs) -> dict[str, pa.Array]:
    """A part's features in the types that training rows have."""
    columns: dict[str, pa.Array] = {}
    for place, spec in enumerate(part.ids):
        columns[feature_column(spec.name)] = pa.array(inputs.ids[:, place].astype(np.int32))
    for place, dense in enumerate(part.dense):
        columns[feature_column(dense.name)] = pa.array(np.ascontiguousarray(inputs.dense[:, place]))
    ends = np.cumsum(inputs.list_lengths.sum(axis=1))[:-1]
    for place, (spec, values) in enumerate(zip(part.lists, np.split(inputs.list_values, ends), strict=False)):
        offsets = np.append(0, np.cumsum(inputs.list_lengths[place])).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)))
        columns[feature_column(spec.name)] = lists
    return columns
