"""Values as they came over the wire to typed columns; what cannot be one is refused by its field."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.hashing import Hashes, hash_array, hash_integer, hash_integers, hash_text
from contract.integers import signed
from features.encode.moment_values import Value, shown
from features.online.compiled import kernels

FEW = 8
"""Texts up to so many are hashed one by one, which spares the fixed cost of Arrow."""
ID_BYTES = 1024
"""Bytes of UTF-8 that one id may have: longer ones are mistakes, or meant to cost the server its time."""
LIST_VALUES = 4096
"""Values that one list may have."""
BYTES_A_CHARACTER = 4
LARGEST_EXACT = 2**53
"""Whole numbers beyond it have no exact float64."""


def id_hashes(values: Sequence[Value], dtype: str, where: str) -> Hashes:
    """Hashes [rows] of ids; the usual requests take a way without Arrow, to the same hashes."""
    kinds = set(map(type, values))
    if dtype == "integer" and kinds <= {int, bool}:
        if len(values) == 1 and -(2**63) <= values[0] < 2**64:
            return np.array([hash_integer(values[0])], np.uint64)
        try:
            return hash_many(np.array(values, dtype=np.int64))
        except OverflowError:
            pass
        try:
            return hash_many(np.array([signed(value) for value in values], dtype=np.int64))
        except OverflowError as error:
            message = f"{where}: an id is outside the range of 64-bit integers"
            raise RequestError(message, field=where) from error
    if str in kinds:
        require_short(values, where)
    if dtype == "string" and kinds <= {str} and len(values) <= FEW:
        return np.array([hash_text(value) for value in values], dtype=np.uint64)
    return hash_array(typed_ids(values, dtype, where))


def hash_many(values: NDArray[np.int64]) -> Hashes:
    """As `hash_integers`, at a fraction of its cost where numba is installed."""
    compiled = kernels()
    return hash_integers(values) if compiled is None else compiled.hash(values)


def require_short(values: Sequence[Value], where: str) -> None:
    """Refuse a text that is too long to be an id, before anything is made of it.

    Raises:
        RequestError: it has more than `ID_BYTES` bytes, or is not valid Unicode.
    """
    for value in values:
        if isinstance(value, str) and len(value) * BYTES_A_CHARACTER > ID_BYTES:
            size = len(value.encode("utf-8", "surrogatepass"))
            if size > ID_BYTES:
                message = (
                    f"{where} holds a text of {size} bytes, {value[:40]!r} ...; allowed are {ID_BYTES} bytes an id"
                )
                raise RequestError(message, field=where)


def typed_ids(values: Sequence[Value], dtype: str, where: str) -> pa.Array:
    """Ids as one Arrow array of the schema's type.

    Whole numbers given as text, or texts given as whole numbers, are refused rather than treated as unknown.
    """
    allowed: tuple[type, ...] = (str,) if dtype == "string" else (int,)
    for value in values:
        if value is not None and not isinstance(value, allowed):
            seen = f"{type(value).__name__} {shown(value)}"
            message = f"{where} must be {'a string' if dtype == 'string' else 'an integer'}, but got {seen}"
            raise RequestError(message, field=where)
    try:
        if dtype == "string":
            return pa.array(values, type=pa.string())
        return pa.array([None if value is None else signed(int(value)) for value in values], type=pa.int64())
    except (pa.ArrowInvalid, OverflowError) as error:
        message = f"{where}: an id is outside the range of 64-bit integers"
        raise RequestError(message, field=where) from error


def typed_lists(values: Sequence[Value], dtype: str, where: str) -> pa.Array:
    """Lists of ids as an Arrow array; a null is an empty list.

    Raises:
        RequestError: one is not a list, or an id is not of the column's type.
    """
    for value in values:
        if value is not None and not isinstance(value, list | tuple):
            message = f"{where} must be a list of ids, but got {type(value).__name__} {shown(value)}"
            raise RequestError(message, field=where)
        if value is not None and len(value) > LIST_VALUES:
            message = f"{where} holds a list of {len(value)} values; allowed are {LIST_VALUES}, so send the newest"
            raise RequestError(message, field=where)
    elements = [element for value in values for element in (value or ())]
    require_short(elements, where)
    flat = typed_ids(elements, dtype, where)
    offsets = np.concatenate([[0], np.cumsum([len(value or ()) for value in values])]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def numbers(values: Sequence[Value], where: str) -> NDArray[np.float64]:
    """Numbers [rows], NaN where there is none."""
    for value in values:
        if value is None:
            continue
        if not isinstance(value, int | float):
            message = f"{where} must be a number, but got {type(value).__name__} {shown(value)}"
            raise RequestError(message, field=where)
        if isinstance(value, int) and abs(value) > LARGEST_EXACT:
            message = f"{where}: a number is too large"
            raise RequestError(message, field=where)
        if not math.isfinite(value):
            message = f"{where} must be finite, but got NaN or infinity; leave it out if it is not known"
            raise RequestError(message, field=where)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def vector_numbers(values: Sequence[Value], width: int, where: str) -> list[NDArray[np.float64]]:
    """The columns [rows] of vectors [rows, width], NaN where a row has none.

    Raises:
        RequestError: a value that is not a list of `width` finite numbers.
    """
    for value in values:
        if value is not None and not (isinstance(value, list | tuple) and len(value) == width):
            seen = f"{len(value)} values" if isinstance(value, list | tuple) else type(value).__name__
            message = f"{where} must be a list of {width} numbers, but got {seen}"
            raise RequestError(message, field=where)
    return [numbers([None if v is None else v[place] for v in values], where) for place in range(width)]
