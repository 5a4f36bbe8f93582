"""Vocabularies: from the hash of a value to its embedding row, learned from training rows, stored as Parquet."""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import IntegrityError
from features.hashing import Hashes, hash_array
from features.parquet import write_table

VOCABULARY_FILE = "vocabulary.parquet"
_SCHEMA = pa.schema([("table", pa.string()), ("value", pa.string()), ("integer", pa.bool_())])


class Vocabularies:
    """By embedding table the sorted hashes of its values and their rows, from 1; row 0 is unknown.

    A null among the values keeps its row free for something else, such as a policy for nulls.
    """

    def __init__(self, values: dict[str, pa.Array]) -> None:
        """Number the values of each table in the order given (the most frequent first)."""
        self._values = values
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
        found = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        return np.where(known[found] == hashes, self._rows[table][found], 0).astype(np.int32)

    def values(self, table: str) -> pa.Array:
        """The values of a table in the order of their rows, from row 1; null where a row is kept free."""
        return self._values[table]

    def sha256(self) -> str:
        """A digest of all tables, for the schema's fingerprint."""
        digest = hashlib.sha256()
        for table in sorted(self._hashes):
            digest.update(table.encode() + b"\0" + self._hashes[table].tobytes() + self._rows[table].tobytes())
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write ``vocabulary.parquet``: embedding table, value as text and whether it was a whole number."""
        parts = [
            pa.table(
                [
                    [table] * len(values),
                    values.cast(pa.string()),
                    [not pa.types.is_string(values.type)] * len(values),
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
        values = {}
        for table in tables:
            mine = stored.filter(pa.compute.equal(stored["table"], table))
            text = mine["value"].combine_chunks()
            integer = mine["integer"].combine_chunks()
            values[table] = text.cast(pa.int64()) if len(integer) and integer[0].as_py() else text
        loaded = cls(values)
        if loaded.sha256() != sha256:
            path = directory / VOCABULARY_FILE
            message = f"{path} is not the vocabulary of the schema beside it; rebuild the features"
            raise IntegrityError(message)
        return loaded
