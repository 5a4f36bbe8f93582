"""Tensors of the Open Inference Protocol to arrays and back. Shape legend: N candidate rows."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from serving.graph.engine import Array
from serving.stubs.inference import grpc_service_pb2 as pb

DATATYPES: dict[str, np.dtype[np.generic]] = {"INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}
"""The datatypes that a graph here can take."""
MAX_DIMENSIONS = 8


def arrays_from(request: pb.ModelInferRequest) -> dict[str, Array]:
    """The input tensors by name, out of raw or typed contents.

    Raises:
        RequestError: a datatype that no graph takes, contents that do not fill the shape, or a name that comes twice.
    """
    return {tensor.name: _array(tensor, raw) for tensor, raw in tensors_of(request)}


def tensors_of(request: pb.ModelInferRequest) -> Iterator[tuple[pb.ModelInferRequest.InferInputTensor, bytes | None]]:
    """The input tensors, each with its raw contents if the request has such.

    Raises:
        RequestError: not one of the raw contents for each, or a name that comes twice.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"there are {len(raw)} raw_input_contents for {len(request.inputs)} inputs; give one for each"
        raise RequestError(message, field="raw_input_contents")
    names: set[str] = set()
    for position, tensor in enumerate(request.inputs):
        if tensor.name in names:
            message = f"the input {tensor.name[:80]!r} comes twice"
            raise RequestError(message, field=tensor.name)
        names.add(tensor.name)
        yield tensor, raw[position] if raw else None


def elements_of(tensor: pb.ModelInferRequest.InferInputTensor) -> int:
    """How many elements a tensor's shape promises.

    Raises:
        RequestError: a negative length, or more dimensions than any tensor here has: a product of thousands of numbers
            takes minutes.
    """
    shape = tensor.shape
    if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0:
        text = f"the shape {list(shape[: MAX_DIMENSIONS + 1])}; allowed are {MAX_DIMENSIONS} lengths, none negative"
        message = f"{tensor.name[:80]} has {text}"
        raise RequestError(message, field=tensor.name)
    return math.prod(shape)


def require_filled(tensor: pb.ModelInferRequest.InferInputTensor, count: int) -> None:
    """Check that so many elements fill the tensor's shape.

    Raises:
        RequestError: they do not.
    """
    if elements_of(tensor) != count:
        message = f"{tensor.name} has {count} elements, which do not fill the shape {list(tensor.shape)}"
        raise RequestError(message, field=tensor.name)


def _array(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Array:
    name, datatype = tensor.name, tensor.datatype
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        message = f"{name} has datatype {datatype[:20]!r}; allowed are {', '.join(DATATYPES)}"
        raise RequestError(message, field=name)
    flat: Array
    if raw is not None:
        if len(raw) % dtype.itemsize:
            message = f"{name} has {len(raw)} raw bytes, which are not a whole number of {datatype}"
            raise RequestError(message, field=name)
        flat = np.frombuffer(raw, dtype)
    elif datatype == "INT64":
        flat = np.array(tensor.contents.int64_contents, np.int64)
    else:
        flat = np.array(tensor.contents.fp32_contents, np.float32)
    require_filled(tensor, flat.size)
    return flat.reshape(tuple(tensor.shape))


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
