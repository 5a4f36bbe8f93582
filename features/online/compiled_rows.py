"""One online table, and the compiled way of its rows into the columns of model inputs."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.hashing import Hashes, combine
from features.online.online_table import OnlineTable

_NO_KEYS = np.zeros(0, np.uint64)
_TWO = 2


class CompiledRows:
    """Looks keys up in one table and copies what it says of them."""

    def __init__(
        self,
        table: OnlineTable,
        id_places: NDArray[np.int64],
        dense_places: NDArray[np.int64],
        fill: Callable[..., Any],
    ) -> None:
        """Copy ids to the columns `id_places`, numbers to `dense_places`, or none, by the kernel `fill`."""
        index = table.index
        arrays = index.hashes, index.rows, table.ids, id_places, table.dense, dense_places
        # What is mapped into memory stays so.
        self._table = (*(np.ascontiguousarray(array) for array in arrays), len(table.keys))
        self._fill = fill

    def copy(
        self, keys: Sequence[Hashes], ids: NDArray[np.int64], dense: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Copy the rows of keys, of whose parts these are the hashes, [n] or [1], into `ids` and `dense`, n rows each.

        Returns:
            Rows of the table [n], those of unknown keys being the last, and which are known [n].
        """
        if len(keys) > _TWO:
            keys = (combine(list(keys)),)
        rows, known = np.empty(len(ids), np.int64), np.empty(len(ids), np.bool_)
        self._fill(keys[0], keys[1] if len(keys) == _TWO else _NO_KEYS, *self._table, ids, dense, rows, known)
        return rows, known
