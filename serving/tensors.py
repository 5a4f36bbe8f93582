"""Tensors of the Open Inference Protocol to arrays and back. Shape legend: N candidate rows."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.errors import RequestError
from serving.engine import Array
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
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        message = f"{tensor.name} has datatype {tensor.datatype[:20]!r}; allowed are {', '.join(DATATYPES)}"
        raise RequestError(message, field=tensor.name)
    shape = tuple(tensor.shape)
    flat: Array
    if raw is not None:
        if len(raw) % dtype.itemsize:
            message = f"{tensor.name} has {len(raw)} raw bytes, which are no whole number of {tensor.datatype}"
            raise RequestError(message, field=tensor.name)
        flat = np.frombuffer(raw, dtype)
    elif tensor.datatype == "INT64":
        flat = np.array(tensor.contents.int64_contents, np.int64)
    else:
        flat = np.array(tensor.contents.fp32_contents, np.float32)
    if any(size < 0 for size in shape) or math.prod(shape) != flat.size:
        message = f"{tensor.name} has {flat.size} elements, which do not fill the shape {list(shape)}"
        raise RequestError(message, field=tensor.name)
    return flat.reshape(shape)


def fill_outputs(
    response: pb.ModelInferResponse,
    predictions: Mapping[str, NDArray[np.float32]],
    wanted: Sequence[str],
    *,
    raw: bool,
) -> None:
    """Write the wanted tasks' predictions [N] into a response, raw or typed as the request was."""
    for task in wanted:
        values = predictions[task]
        output = response.outputs.add(name=task, datatype="FP32", shape=values.shape)
        if raw:
            response.raw_output_contents.append(values.astype("<f4", copy=False).tobytes())
        else:
            output.contents.fp32_contents.extend(values.tolist())
