"""Checks of encoded inputs that come from outside: a graph reads wrong rows of its tables without an error.

Shape legend: R requests, N candidate rows, F id features, L id-list features, D dense features, V packed ids.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.encoding import LARGEST
from features.errors import RequestError
from features.inputs import PARTS, PartName
from features.schema import Part, Schema
from serving.engine import Array


def require_valid(schema: Schema, arrays: Mapping[str, Array], needed: Sequence[str]) -> int:
    """Check arrays by the graph's input names against a schema.

    Returns:
        N, the number of candidate rows.

    Raises:
        RequestError: an array is missing, unknown, of a wrong type or shape, or holds ids or numbers out of range.
    """
    for name in needed:
        if name not in arrays:
            message = f"the input {name} is missing; this model takes {', '.join(needed)}"
            raise RequestError(message, field=name)
    for name in arrays:
        if name not in needed:
            message = f"the input {name[:80]!r} is unknown; this model takes {', '.join(needed)}"
            raise RequestError(message, field=name)
    rows = {part: _part_rows(part, schema.part(part), arrays) for part in PARTS}
    candidates = rows["candidate"] if rows["candidate"] is not None else rows["request"]
    if not candidates or rows["request"] not in {None, 1, candidates}:
        message = f"there are {rows['request']} request rows for {candidates} candidate rows; allowed are 1 or as many"
        raise RequestError(message, field="request_ids")
    return candidates


def _part_rows(name: PartName, part: Part, arrays: Mapping[str, Array]) -> int | None:
    """The number of rows of a part, or None if no array of it is there."""
    found: dict[str, int] = {}
    if (ids := arrays.get(f"{name}_ids")) is not None:
        _require_form(f"{name}_ids", ids, np.int64, (ids.shape[0] if ids.ndim else 0, len(part.ids)))
        _require_range(f"{name}_ids", ids, np.array([spec.rows for spec in part.ids], np.int64))
        found["ids"] = ids.shape[0]
    if (dense := arrays.get(f"{name}_dense")) is not None:
        _require_form(f"{name}_dense", dense, np.float32, (dense.shape[0] if dense.ndim else 0, len(part.dense)))
        if not (np.abs(dense) <= LARGEST).all():
            message = f"{name}_dense has values that are not finite or beyond {LARGEST:g}"
            raise RequestError(message, field=f"{name}_dense")
        found["dense"] = dense.shape[0]
    lengths, values = arrays.get(f"{name}_list_lengths"), arrays.get(f"{name}_list_values")
    if lengths is not None and values is not None:
        _require_lists(name, part, lengths, values)
        found["list_lengths"] = lengths.shape[1]
    if len(set(found.values())) > 1:
        text = ", ".join(f"{array} {rows}" for array, rows in found.items())
        message = f"the inputs of the {name} differ in rows: {text}"
        raise RequestError(message, field=f"{name}_{next(iter(found))}")
    return next(iter(found.values()), None)


def _require_form(name: str, array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype).name} of shape {list(shape)}"
        message = f"{name} must be {wanted}, but got {array.dtype.name} of shape {list(array.shape)}"
        raise RequestError(message, field=name)


def _require_range(name: str, ids: Array, limits: NDArray[np.int64]) -> None:
    """Ids lie in [0, limit) of their column; `limits` broadcasts against `ids`."""
    if not ((ids >= 0) & (ids < limits)).all():
        message = f"{name} has ids that are negative or beyond their feature's table; row 0 is the unknown id"
        raise RequestError(message, field=name)


def _require_lists(name: PartName, part: Part, lengths: Array, values: Array) -> None:
    """Check packed lists: `lengths` [L, rows], `values` [V] feature by feature."""
    rows = lengths.shape[-1] if lengths.ndim else 0
    _require_form(f"{name}_list_lengths", lengths, np.int64, (len(part.lists), rows))
    inside = bool(((lengths >= 0) & (lengths <= values.size)).all())
    if values.dtype != np.int64 or values.ndim != 1 or not inside or int(lengths.sum()) != values.size:
        message = f"{name}_list_values must be int64 of as many ids as {name}_list_lengths adds up to"
        raise RequestError(message, field=f"{name}_list_values")
    limits = np.repeat(np.array([spec.rows for spec in part.lists], np.int64), lengths.sum(axis=1))
    _require_range(f"{name}_list_values", values, limits)
