"""Checks of encoded inputs that come from outside: a graph reads wrong rows of its tables without an error.

Shape legend: R requests, N candidate rows, F id features, L id-list features, D dense features, V packed ids.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.inputs import PARTS, PartName
from contract.schema import Part, Schema
from features.encode.encoder import LARGEST
from serving.graph.engine import Array


class InputCheck:
    """The checks of one model; what they compare with is worked out once."""

    def __init__(self, schema: Schema, needed: Sequence[str]) -> None:
        """Check arrays by the graph's input names, of which it takes those `needed`, against a schema."""
        self._needed = tuple(needed)
        self._parts = tuple(_PartCheck(name, schema.part(name)) for name in PARTS)

    def require_valid(self, arrays: Mapping[str, Array]) -> int:
        """Check arrays.

        Returns:
            N, the number of candidate rows.

        Raises:
            RequestError: an array is missing, unknown, of a wrong type or shape, or holds ids or numbers out of range.
        """
        for name in self._needed:
            if name not in arrays:
                message = f"the input {name} is missing; this model takes {', '.join(self._needed)}"
                raise RequestError(message, field=name)
        for name in arrays:
            if name not in self._needed:
                message = f"the input {name[:80]!r} is unknown; this model takes {', '.join(self._needed)}"
                raise RequestError(message, field=name)
        requests, candidate_rows = (part.rows(arrays) for part in self._parts)
        candidates = candidate_rows if candidate_rows is not None else requests
        if not candidates or requests not in {None, 1, candidates}:
            message = f"there are {requests} request rows for {candidates} candidate rows; allowed are 1 or as many"
            raise RequestError(message, field="request_ids")
        return candidates


class _PartCheck:
    """The checks of a part's arrays."""

    def __init__(self, name: PartName, part: Part) -> None:
        self._name = name
        self._ids, self._dense = f"{name}_ids", f"{name}_dense"
        self._lengths, self._values = f"{name}_list_lengths", f"{name}_list_values"
        self._limits = np.array([spec.rows for spec in part.ids], np.uint64)
        self._list_limits = np.array([spec.rows for spec in part.lists], np.uint64)
        self._columns = len(part.dense)

    def rows(self, arrays: Mapping[str, Array]) -> int | None:
        """The number of rows of the part, or None if no array of it is there."""
        rows_by_array: dict[str, int] = {}
        if (ids := arrays.get(self._ids)) is not None:
            _require_form(self._ids, ids, np.int64, (ids.shape[0] if ids.ndim else 0, len(self._limits)))
            _require_range(self._ids, ids, self._limits)
            rows_by_array["ids"] = ids.shape[0]
        if (dense := arrays.get(self._dense)) is not None:
            _require_form(self._dense, dense, np.float32, (dense.shape[0] if dense.ndim else 0, self._columns))
            if not (np.abs(dense) <= LARGEST).all():
                message = f"{self._dense} has values that are not finite or beyond {LARGEST:g}"
                raise RequestError(message, field=self._dense)
            rows_by_array["dense"] = dense.shape[0]
        lengths, values = arrays.get(self._lengths), arrays.get(self._values)
        if lengths is not None and values is not None:
            self._require_lists(lengths, values)
            rows_by_array["list_lengths"] = lengths.shape[1]
        if len(set(rows_by_array.values())) > 1:
            text = ", ".join(f"{array} {rows}" for array, rows in rows_by_array.items())
            message = f"the inputs of the {self._name} differ in rows: {text}"
            raise RequestError(message, field=f"{self._name}_{next(iter(rows_by_array))}")
        return next(iter(rows_by_array.values()), None)

    def _require_lists(self, lengths: Array, values: Array) -> None:
        """Check packed lists: `lengths` [L, rows], `values` [V] feature by feature."""
        rows = lengths.shape[-1] if lengths.ndim else 0
        _require_form(self._lengths, lengths, np.int64, (len(self._list_limits), rows))
        inside = bool(((lengths >= 0) & (lengths <= values.size)).all())
        if values.dtype != np.int64 or values.ndim != 1 or not inside or int(lengths.sum()) != values.size:
            message = f"{self._values} must be int64 of as many ids as {self._lengths} adds up to"
            raise RequestError(message, field=self._values)
        _require_range(self._values, values, np.repeat(self._list_limits, lengths.sum(axis=1)))


def _require_form(name: str, array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        wanted = f"{np.dtype(dtype).name} of shape {list(shape)}"
        message = f"{name} must be {wanted}, but got {array.dtype.name} of shape {list(array.shape)}"
        raise RequestError(message, field=name)


def _require_range(name: str, ids: Array, limits: NDArray[np.uint64]) -> None:
    """Ids lie in [0, limit) of their column; `limits` broadcasts against `ids`."""
    # Seen as unsigned, negative ids are the largest, which spares a second pass.
    if np.count_nonzero(ids.view(np.uint64) >= limits):
        message = f"{name} has ids that are negative or beyond their feature's table; row 0 is the unknown id"
        raise RequestError(message, field=name)
