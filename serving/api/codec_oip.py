"""Tensors of the Open Inference Protocol to arrays and back. Shape legend: N candidate rows."""

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from serving.graph.engine import Array
from serving.stubs.inference import grpc_service_pb2 as pb

DATATYPES: dict[str, np.dtype[np.generic]] = {"INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}
"""The datatypes that a graph here can take."""


def arrays_from(request: pb.ModelInferRequest) -> dict[str, Array]:
    """The input tensors by name, out of raw or typed contents.

    Raises:
        RequestError: a datatype that no graph takes, contents that do not fill the shape, or a name that comes twice.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"there are {len(raw)} raw_input_contents for {len(request.inputs)} inputs; give one for each"
        raise RequestError(message, field="raw_input_contents")
    arrays: dict[str, Array] = {}
    for position, tensor in enumerate(request.inputs):
        if tensor.name in arrays:
            message = f"the input {tensor.name[:80]!r} comes twice"
            raise RequestError(message, field=tensor.name)
        arrays[tensor.name] = _array(tensor, raw[position] if raw else None)
    return arrays


def _array(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Array:
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        message = f"{name} has datatype {datatype[:20]!r}; allowed are {', '.join(DATATYPES)}"
        raise RequestError(message, field=name)
    flat: Array
    if raw is not None:
        if len(raw) % dtype.itemsize:
            message = f"{name} has {len(raw)} raw bytes, which are no whole number of {datatype}"
            raise RequestError(message, field=name)
        flat = np.frombuffer(raw, dtype)
    elif datatype == "INT64":
        flat = np.array(tensor.contents.int64_contents, np.int64)
    else:
        flat = np.array(tensor.contents.fp32_contents, np.float32)
    if min(shape, default=0) < 0 or math.prod(shape) != flat.size:
        message = f"{name} has {flat.size} elements, which do not fill the shape {list(shape)}"
        raise RequestError(message, field=name)
    return flat.reshape(shape)


def response_of(
    model: str,
    version: int,
    request: pb.ModelInferRequest,
    predictions: Mapping[str, NDArray[np.float32]],
    wanted: tuple[str, ...],
    about: Mapping[str, str],
) -> bytes:
    """The encoded ModelInferResponse with the wanted tasks' predictions [N], raw or typed as the request was.

    What is told `about` the answer are its parameters.
    """
    head = _head(model, version, wanted, len(predictions[wanted[0]]))
    if request.raw_input_contents:
        raw = [predictions[task].astype("<f4", copy=False).tobytes() for task in wanted]
        # Encodings one behind the other are read as one message.
        response = pb.ModelInferResponse(id=request.id, raw_output_contents=raw)
        for name, text in about.items():
            response.parameters[name].string_param = text
        return head + response.SerializeToString()
    response = pb.ModelInferResponse.FromString(head)
    response.id = request.id
    for name, text in about.items():
        response.parameters[name].string_param = text
    for task, output in zip(wanted, response.outputs, strict=True):
        output.contents.fp32_contents.extend(predictions[task].tolist())
    return response.SerializeToString()


@lru_cache(maxsize=1024)
def _head(model: str, version: int, tasks: tuple[str, ...], rows: int) -> bytes:
    """What all answers for so many rows share, encoded."""
    output = pb.ModelInferResponse.InferOutputTensor
    outputs = [output(name=task, datatype="FP32", shape=[rows]) for task in tasks]
    return pb.ModelInferResponse(model_name=model, model_version=str(version), outputs=outputs).SerializeToString()
