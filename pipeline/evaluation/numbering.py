"""Number the distinct values of a column, such as users: as `np.unique` does, without sorting all rows."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DENSE = 8
"""Whole numbers in a range of at most so many times the rows are counted in a table of that range."""


def numbered(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct values in rising order [U], and the number of each row's value among them [n].

    Example:
        >>> distinct, number = numbered(np.array([30, 10, 30]))
        >>> distinct.tolist(), number.tolist()
        ([10, 30], [1, 0, 1])
    """
    if values.size == 0 or values.dtype.kind not in "iu":
        return np.unique(values, return_inverse=True)
    low, high = int(values.min()), int(values.max())
    if high - low < _DENSE * values.size:
        place = (values - values.dtype.type(low)).astype(np.int64)
        present = np.zeros(high - low + 1, dtype=bool)
        present[place] = True
        number = np.cumsum(present) - 1
        return np.flatnonzero(present).astype(values.dtype) + values.dtype.type(low), number[place]
    encoded = pa.array(values).dictionary_encode()
    dictionary = encoded.dictionary.to_numpy()
    order = np.argsort(dictionary, kind="stable")
    number = np.empty(order.size, dtype=np.int64)
    number[order] = np.arange(order.size)
    return dictionary[order], number[encoded.indices.to_numpy()]
