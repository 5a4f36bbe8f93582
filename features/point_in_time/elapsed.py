"""How long before a row the events in its lists happened: whole powers of two of seconds.

A model tells minutes from days and not 40 days from 41, and a few dozen values are learned from few rows.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LONGEST = 40
"""The largest power that is told apart: 35,000 years."""
_MILLISECONDS = 1000


def powers(gaps_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """The whole part of the logarithm to base 2 of each gap in seconds; 0 below two seconds.

    >>> powers(np.array([1, 1_999, 2_000, 3_600_000, 86_400_000])).tolist()
    [0, 0, 1, 11, 16]
    """
    # Exact where a logarithm would round: x = m * 2**e with m from 1/2 up to 1.
    _, exponents = np.frexp(np.maximum(gaps_ms // _MILLISECONDS, 1).astype(np.float64))
    return np.minimum(exponents - 1, LONGEST).astype(np.int64)


def elapsed(times: pa.Array, rows_ms: NDArray[np.int64]) -> pa.Array:
    """Lists of events' times, in milliseconds, as how long before the rows they happened; null stays null.

    >>> elapsed(pa.array([[0, 7_000], None]), np.array([8_000, 8_000])).to_pylist()
    [[3, 0], None]
    """
    flat = times.flatten()
    lengths = times.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    passed = powers(np.repeat(rows_ms, lengths) - flat.to_numpy(zero_copy_only=False))
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(passed), mask=times.is_null())
