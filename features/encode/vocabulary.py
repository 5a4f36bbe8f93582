"""Vocabularies: from the hash of a value to its embedding row, learned from training rows, stored as Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.errors import IntegrityError
from contract.hashing import Hashes, hash_array
from contract.sha256 import RunningSha256
from features.source.parquet_files import write_table

VOCABULARY_FILE = "vocabulary.parquet"
_SCHEMA = pa.schema([("table", pa.string()), ("value", pa.string()), ("integer", pa.bool_()), ("since", pa.int32())])
ALWAYS = int(np.iinfo(np.int32).min)
"""The day since which values are known that were learned at once, and not as a log went on."""
Days = NDArray[np.int32]


class Vocabularies:
    """By embedding table the sorted hashes of its values and their rows, from 1; row 0 is unknown.

    A null among the values keeps its row free for something else, such as a policy for nulls. `since` [values] has by
    table the day from which on a value was known.
    """

    def __init__(self, values: dict[str, pa.Array], since: dict[str, Days] | None = None) -> None:
        """Number the values of each table in the order given (the most frequent first)."""
        self._values = values
        self._since = {t: np.full(len(v), ALWAYS, np.int32) for t, v in values.items()} | (since or {})
        self._hashes: dict[str, Hashes] = {}
        self._rows: dict[str, NDArray[np.int32]] = {}
        for table, known in values.items():
            hashes = hash_array(known)
            order = np.argsort(hashes, kind="stable")[int(known.null_count) :]
            self._hashes[table] = hashes[order]
            self._rows[table] = (order + 1).astype(np.int32)

    def size(self, table: str) -> int:
        """Embedding rows of a table, the row for unknown values included."""
        return len(self._values[table]) + 1

    def rows(self, table: str, hashes: Hashes) -> NDArray[np.int32]:
        """The embedding row of each hash; 0 where unknown."""
        known = self._hashes[table]
        if not len(known):
            return np.zeros(len(hashes), dtype=np.int32)
        position = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return np.where(known[position] == hashes, self._rows[table][position], 0).astype(np.int32)

    def values(self, table: str) -> pa.Array:
        """The values of a table in the order of their rows, from row 1; null where a row is kept free."""
        return self._values[table]

    def since(self, table: str) -> Days:
        """The day since which each value of a table is known."""
        return self._since[table]

    def as_of(self, day: int) -> "Vocabularies":
        """What was known on a day; the rows of values that came later are free."""
        if all((since <= day).all() for since in self._since.values()):
            return self
        known = {table: pa.array(since <= day) for table, since in self._since.items()}
        return Vocabularies({t: pc.if_else(known[t], v, pa.scalar(None, v.type)) for t, v in self._values.items()})

    def digests(self, days: Sequence[int]) -> list[str]:
        """By day, of ascending ones, a digest of what was known then; it changes only if that does."""
        running, digests = RunningSha256(), list[str]()
        sorted_by_day = []
        for table in sorted(self._hashes):
            rows = self._rows[table]
            since = self._since[table][rows - 1]
            order = np.lexsort((rows, since))
            sorted_by_day.append((since[order], self._hashes[table][order], rows[order]))
        before = [0] * len(sorted_by_day)
        for day in days:
            for number, (since, hashes, rows) in enumerate(sorted_by_day):
                end = int(np.searchsorted(since, day, side="right"))
                running.update(b"%d" % (end - before[number]), hashes[before[number] : end].tobytes())
                running.update(rows[before[number] : end].tobytes())
                before[number] = end
            digests.append(running.digest())
        return digests

    def sha256(self) -> str:
        """A digest of all tables, for the schema's fingerprint."""
        running = RunningSha256()
        for table in sorted(self._hashes):
            running.update(table.encode(), b"\0", self._hashes[table].tobytes(), self._rows[table].tobytes())
        return running.digest()

    def save(self, directory: Path) -> None:
        """Write ``vocabulary.parquet``: embedding table, value as text, whether it was a whole number, since when."""
        parts = [
            pa.table(
                [
                    pa.repeat(table, len(values)),
                    values.cast(pa.string()),
                    pa.repeat(not pa.types.is_string(values.type), len(values)),
                    pa.array(self._since[table]),
                ],
                schema=_SCHEMA,
            )
            for table, values in self._values.items()
        ]
        write_table(pa.concat_tables([*parts, _SCHEMA.empty_table()]), directory / VOCABULARY_FILE)

    @classmethod
    def load(cls, directory: Path, tables: tuple[str, ...], sha256: str) -> Self:
        """Read the vocabularies of `tables`, of which some may be empty.

        Raises:
            IntegrityError: the file is not the one that the schema was fitted with.
        """
        stored = pq.read_table(directory / VOCABULARY_FILE, page_checksum_verification=True)
        values, since = {}, {}
        for table in tables:
            of_table = stored.filter(pc.equal(stored["table"], table))
            text = of_table["value"].combine_chunks()
            integer = of_table["integer"].combine_chunks()
            values[table] = text.cast(pa.int64()) if len(integer) and integer[0].as_py() else text
            # Vocabularies of earlier versions were learned at once.
            since[table] = (
                of_table["since"].to_numpy() if "since" in of_table.column_names else np.full(len(text), ALWAYS)
            )
        loaded = cls(values, since)
        if loaded.sha256() != sha256:
            path = directory / VOCABULARY_FILE
            message = f"{path} is not the vocabulary of the schema beside it; rebuild the features"
            raise IntegrityError(message)
        return loaded
