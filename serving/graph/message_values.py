"""From a feature's value in a protobuf message to plain Python."""

from typing import Any

from contract.errors import RequestError
from features.online.request_values import LIST_VALUES
from serving.stubs.moerank.v1 import ranking_pb2

MAX_DEPTH = 4
"""How deep lists of values may nest."""


def value_from(field: str, value: ranking_pb2.Value, depth: int = 0) -> Any:
    """One feature's value: None, bool, int, float, str or a list of such.

    Raises:
        RequestError: lists nest too deep.
    """
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null":
        return None
    if kind in {"values", "texts", "integers", "numbers"}:
        _require_size(field, len(getattr(value, kind).values))
    if kind == "values":
        if depth >= MAX_DEPTH:
            message = f"{field} nests lists deeper than {MAX_DEPTH}; send a flat list"
            raise RequestError(message, field=field)
        return [value_from(field, each, depth + 1) for each in value.values.values]
    content = getattr(value, kind)
    return list(content.values) if kind in {"texts", "integers", "numbers"} else content


def _require_size(field: str, size: int) -> None:
    if size > LIST_VALUES:
        message = f"{field} holds a list of {size} values; allowed are {LIST_VALUES}, so send the newest"
        raise RequestError(message, field=field)
