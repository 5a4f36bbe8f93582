"""The same request in three forms: ids for the server to look up, encoded tensors, and arrays for onnxruntime."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.api.codec_rank import request_from
from serving.client.client_response import Query
from serving.graph.engine import Engine
from serving.graph.served_model import RankingModel
from serving.stubs.inference import grpc_service_pb2 as pb

KINDS = {"int64": "INT64", "float32": "FP32"}


@dataclass(frozen=True)
class Payload:
    """Messages of `Rank` and of `ModelInfer`, and what the graph takes, by input name."""

    rank: bytes
    infer: bytes
    feed: dict[str, NDArray[Any]]


def payload(model: RankingModel, user: int | None, items: int, candidates: int, context: Mapping[str, Any]) -> Payload:
    """A request of one user with candidates among `items` known ones, which have the ids from 0."""
    chosen = np.random.default_rng(0).integers(0, items, candidates).tolist()
    message = Query(user, chosen, context).message(model.name, 0)
    arrays = model.encoder.encode(request_from(message)).inputs.arrays()
    feed = {name: arrays[name] for name in model.engine.inputs}
    return Payload(message.SerializeToString(), infer_message(model.name, feed), feed)


def infer_message(model: str, feed: Mapping[str, NDArray[Any]]) -> bytes:
    """Raw tensors in the Open Inference Protocol."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in feed.items():
        request.inputs.add(name=name, datatype=KINDS[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


def floor(engine: Engine, feed: Mapping[str, NDArray[Any]], calls: int) -> float:
    """CPU seconds of in-process onnxruntime a call."""
    session = engine._session  # noqa: SLF001 the floor is onnxruntime without any of our checks
    began = time.process_time()
    for _ in range(calls):
        session.run(engine.tasks, dict(feed))
    return (time.process_time() - began) / calls


def current(store: Path) -> RankingModel:
    """The one model of a store, in its current version."""
    pointer = next(store.glob("*/current"))
    return RankingModel.open(pointer.parent / pointer.read_text(encoding="ascii").strip())
