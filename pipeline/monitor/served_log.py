"""Which version served a row, by the log of served requests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from contract.errors import DataError
from contract.hashing import combine, hash_array
from features.served.log_format import CANDIDATES_KEY, candidate_rows
from features.table_config import EventsConfig

_COLUMNS = ("user", "item", "at_ms", "version")


@dataclass(frozen=True)
class ServedLog:
    """What was served: a hash of user and item, the time in ms and the version, sorted by the first two, each [N]."""

    pair: NDArray[np.uint64]
    at_ms: NDArray[np.int64]
    version: NDArray[np.int64]

    @classmethod
    def read(cls, path: str, model: str, events: EventsConfig, span: tuple[int, int]) -> Self:
        """Read a log of `moerank serve --log`, or a table with columns of user, item, time and version.

        Args:
            path: A Parquet file or a directory of them.
            model: Whose rows; the server's log keeps each model's in a folder of its own.
            events: How the log of events names its user, item and time, which a table may do, too.
            span: The first moment, and the first one after the last, in milliseconds since 1970.

        Raises:
            DataError: it cannot be read, or a column is missing.
        """
        dataset = _open(path, model)
        names = {"user": events.user, "item": events.item, "at_ms": events.time}
        own = {name: name if name in dataset.schema.names else str(names.get(name, name)) for name in _COLUMNS}
        missing = [name for name, column in own.items() if column not in dataset.schema.names]
        if missing:
            message = (
                f"{path} has no column of {missing[0]} (looked for {missing[0]!r} and {own[missing[0]]!r}); it has "
                f"{', '.join(dataset.schema.names)}"
            )
            raise DataError(message)
        table = dataset.to_table(columns=list(own.values())).combine_chunks()
        if CANDIDATES_KEY in (dataset.schema.metadata or {}):
            table = candidate_rows(table.replace_schema_metadata(dataset.schema.metadata))
        at_ms = _milliseconds(table[own["at_ms"]])
        inside = (at_ms >= span[0]) & (at_ms < span[1])
        user, item = (hash_array(table[own[side]].combine_chunks())[inside] for side in ("user", "item"))
        pair, at_ms = _pairs(user, item), at_ms[inside]
        order = np.lexsort((at_ms, pair))
        version = table[own["version"]].to_numpy().astype(np.int64)[inside]
        return cls(pair[order], at_ms[order], version[order])

    def versions(self) -> list[int]:
        """The versions that served anything."""
        return [int(version) for version in np.unique(self.version)]

    def version_of(
        self, user: NDArray[np.uint64], item: NDArray[np.uint64], time: NDArray[np.int64]
    ) -> NDArray[np.int64]:  # fmt: skip
        """The version that last served the item to the user before, or at, the row's time; 0: none did. All [N]."""
        pair = _pairs(user, item)
        # Rows of the log and questions sorted together: a question takes the row of the log just before it.
        keys, times = np.concatenate([self.pair, pair]), np.concatenate([self.at_ms, time])
        is_question = np.repeat([False, True], [self.pair.size, pair.size])
        order = np.lexsort((is_question, times, keys))
        last = np.maximum.accumulate(np.where(is_question[order], -1, np.arange(order.size)))
        served = order[np.maximum(last, 0)]
        fits = (last >= 0) & (keys[served] == keys[order])
        version = np.zeros(order.size, dtype=np.int64)
        versions = np.concatenate([self.version, np.zeros(pair.size, dtype=np.int64)])
        version[order] = np.where(fits, versions[served], 0)
        return version[self.pair.size :]


def _open(path: str, model: str) -> ds.Dataset:
    own = Path(path) / f"model={model}"
    try:
        return ds.dataset(str(own) if own.is_dir() else path, format="parquet")
    except (OSError, pa.ArrowInvalid) as error:
        message = f"the served log {path} cannot be read as Parquet: {error}"
        raise DataError(message) from error


def _pairs(user: NDArray[np.uint64], item: NDArray[np.uint64]) -> NDArray[np.uint64]:
    pairs: NDArray[np.uint64] = combine([user | np.uint64(1), item | np.uint64(1)])
    return pairs


def _milliseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return values
