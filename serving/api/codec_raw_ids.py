"""Raw ids as tensors of the Open Inference Protocol, so that a stock client ranks without encoding anything.

``items`` [N] and, if there is one, ``user`` [1] are INT64 or BYTES (UTF-8), as the raw data's keys are; any other input
of one element, INT64, FP64, FP32, BOOL or BYTES, is a feature of the context.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from contract.errors import RequestError
from features.online.request_encoder import RankRequest
from serving.api.codec_oip import elements_of, require_filled, tensors_of
from serving.stubs.inference import grpc_service_pb2 as pb

USER, ITEMS = "user", "items"
_NUMBERS = {"INT64": "<i8", "FP64": "<f8", "FP32": "<f4", "BOOL": "?"}
_TYPED = {
    "INT64": "int64_contents",
    "FP64": "fp64_contents",
    "FP32": "fp32_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}
_LENGTH = struct.Struct("<I")


def has_raw_ids(request: pb.ModelInferRequest) -> bool:
    """Whether a request names its candidates rather than their encoded features."""
    return any(tensor.name == ITEMS for tensor in request.inputs)


def count_raw_items(request: pb.ModelInferRequest) -> int:
    """How many candidates a request says to have, without reading them.

    Raises:
        RequestError: a shape that no tensor here has.
    """
    return max((elements_of(tensor) for tensor in request.inputs if tensor.name == ITEMS), default=0)


def raw_request_from(request: pb.ModelInferRequest) -> RankRequest:
    """The ranking request that the tensors say.

    Raises:
        RequestError: a datatype that is none of these, contents that do not fill the shape, a name that comes twice, or
            several users.
    """
    values: dict[str, Sequence[Any]] = {}
    for tensor, raw in tensors_of(request):
        values[tensor.name] = _values(tensor, raw)
        if tensor.name != ITEMS and len(values[tensor.name]) != 1:
            message = f"{tensor.name} has {len(values[tensor.name])} elements; one call ranks for one user and context"
            raise RequestError(message, field=tensor.name)
    items = values.pop(ITEMS)
    user = values.pop(USER, [None])[0]
    return RankRequest(user, items, {name: each[0] for name, each in values.items()})


def _values(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> list[Any]:
    name, datatype = tensor.name, tensor.datatype
    if datatype not in _TYPED:
        message = f"{name} has datatype {datatype[:20]!r}; allowed beside items are {', '.join(_TYPED)}"
        raise RequestError(message, field=name)
    if raw is None:
        values = list(getattr(tensor.contents, _TYPED[datatype]))
        values = [_text(name, each) for each in values] if datatype == "BYTES" else values
    elif datatype == "BYTES":
        values = _texts(name, raw)
    else:
        dtype = np.dtype(_NUMBERS[datatype])
        whole = len(raw) - len(raw) % dtype.itemsize
        values = np.frombuffer(raw[:whole], dtype).tolist() if whole == len(raw) else []
    require_filled(tensor, len(values))
    return values


def _texts(name: str, raw: bytes) -> list[str]:
    """Each element is its length, four bytes in little-endian order, and its bytes."""
    texts, at = [], 0
    while at + _LENGTH.size <= len(raw):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        texts.append(_text(name, raw[at : at + length]))
        at += length
    if at != len(raw):
        message = f"{name} has {len(raw)} raw bytes, which are not a whole number of BYTES elements"
        raise RequestError(message, field=name)
    return texts


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        message = f"{name} holds bytes that are no UTF-8: {content[:20]!r}"
        raise RequestError(message, field=name) from error
