"""One user's encoded features as one blob: a header, arrays in little-endian order, and a checksum of it all."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from contract.errors import DataError
from features.online.online_table import TableRows
from features.point_in_time.ragged import Ragged

_HEADER = struct.Struct("<4s4H")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"mru1"


@dataclass(frozen=True)
class UserBlob:
    """How many id and dense features and key hashes a user has, and the names of the lists."""

    ids: int
    dense: int
    keys: int
    lists: tuple[str, ...]

    def encode(self, rows: TableRows) -> bytes:
        """The blob of a look-up's first row."""
        values = [lists.values[: lists.offsets[1]] for lists in (rows.lists[name] for name in self.lists)]
        body = b"".join(
            (
                self._header(),
                rows.ids[0].astype("<i4").tobytes(),
                rows.dense[0].astype("<f4").tobytes(),
                rows.key_hashes[0].astype("<u8").tobytes(),
                np.array([len(each) for each in values], dtype="<i4").tobytes(),
                *(each.astype("<i4").tobytes() for each in values),
            )
        )
        return body + _CHECKSUM.pack(zlib.crc32(body))

    def decode(self, blob: bytes) -> TableRows:
        """One row, known.

        Raises:
            DataError: not a blob of this layout, or damaged.
        """
        body = blob[: -_CHECKSUM.size]
        header = self._header()
        if body[: len(header)] != header or blob[len(body) :] != _CHECKSUM.pack(zlib.crc32(body)):
            message = f"{len(blob)} bytes starting with {blob[:12].hex()} are not an intact user of this model's table"
            raise DataError(message)
        at = len(header)
        ids = np.frombuffer(body, "<i4", self.ids, at).astype(np.int32)
        dense = np.frombuffer(body, "<f4", self.dense, at := at + 4 * self.ids).astype(np.float32)
        keys = np.frombuffer(body, "<u8", self.keys, at := at + 4 * self.dense).astype(np.uint64)
        lengths = np.frombuffer(body, "<i4", len(self.lists), at := at + 8 * self.keys).astype(np.int64)
        values = np.frombuffer(body, "<i4", -1, at + 4 * len(self.lists)).astype(np.int32)
        parts = np.split(values, np.cumsum(lengths)[:-1]) if self.lists else []
        return TableRows(
            known=np.ones(1, dtype=np.bool_),
            ids=ids[None],
            dense=dense[None],
            key_hashes=keys[None],
            lists={n: Ragged(part, np.array([0, len(part)])) for n, part in zip(self.lists, parts, strict=True)},
        )

    def _header(self) -> bytes:
        return _HEADER.pack(_MAGIC, self.ids, self.dense, self.keys, len(self.lists))


def join(rows: list[TableRows]) -> TableRows:
    """Several rows as one look-up."""
    if len(rows) == 1:
        return rows[0]
    lists = {name: Ragged.joined([row.lists[name] for row in rows]) for name in rows[0].lists}
    known, ids, dense, keys = (np.concatenate([row[field] for row in rows]) for field in range(4))
    return TableRows(known, ids, dense, keys, lists)
