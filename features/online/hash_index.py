"""An open-addressing index from 64-bit hashes to rows that works as it lies in a file.

Buckets of eight slots, one cache line each; a key lies in its home bucket or, where that is full, in the next one with
room, so that one comparison of eight slots finds nearly every key and a bucket with an empty slot ends the search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from contract.hashing import NULL_HASH, Hashes

WIDTH = 8
_LARGEST_LOAD = 0.5
_BYTES, _TOP = np.uint64(0x0001020304050607), np.uint64(56)
"""Times the first, a word whose byte k is 1 has k as its top byte, which the second shifts down."""


@dataclass(frozen=True)
class HashIndex:
    """`hashes` uint64 [buckets, 8] (0: empty) and `rows` int32 of the same shape."""

    hashes: Hashes
    rows: NDArray[np.int32]

    @classmethod
    def build(cls, keys: Hashes) -> Self:
        """Index distinct hashes other than 0: row r holds ``keys[r]``."""
        buckets = 1 << max(0, int(np.ceil(np.log2(max(len(keys), 1) / (WIDTH * _LARGEST_LOAD)))))
        hashes = np.zeros((buckets, WIDTH), dtype=np.uint64)
        rows = np.zeros((buckets, WIDTH), dtype=np.int32)
        filled = np.zeros(buckets, dtype=np.int64)
        pending = np.arange(len(keys))
        home = _home(keys, buckets)
        while len(pending):
            order = np.argsort(home[pending], kind="stable")
            pending = pending[order]
            bucket = home[pending]
            first = np.searchsorted(bucket, bucket)
            slot = filled[bucket] + np.arange(len(bucket)) - first
            fits = slot < WIDTH
            hashes[bucket[fits], slot[fits]] = keys[pending[fits]]
            rows[bucket[fits], slot[fits]] = pending[fits]
            filled += np.bincount(bucket[fits], minlength=buckets)
            pending = pending[~fits]
            home[pending] = (home[pending] + 1) % buckets
        return cls(hashes, rows)

    def find(self, keys: Hashes, unknown: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row [n] of each hash, `unknown` where it is not there, and whether it is."""
        rows, is_known = self._joint.find(keys[None], np.array([unknown]))
        return rows[0], is_known[0]

    def slot_of(self, key: int) -> int:
        """The slot in which a hash lies, counted through all buckets; -1 if it is not there."""
        bucket = key & (len(self.hashes) - 1)
        for _ in range(len(self.hashes) if key else 0):
            line = self.hashes[bucket].tolist()
            if key in line:
                return bucket * WIDTH + int(line.index(key))
            if not line[-1]:
                break
            bucket = (bucket + 1) % len(self.hashes)
        return -1

    @cached_property
    def _joint(self) -> "JointHashIndex":
        # Not of itself: in a circle, a swapped-out bundle's files would stay mapped until the garbage is collected.
        return JointHashIndex((HashIndex(self.hashes, self.rows),))


class JointHashIndex:
    """Several indexes that are asked together, which costs little more than to ask one."""

    def __init__(self, indexes: Sequence[HashIndex]) -> None:
        self._indexes = tuple(indexes)
        self._rows = tuple(index.rows.ravel() for index in indexes)
        self._last = np.array([[len(index.hashes) - 1] for index in indexes], dtype=np.uint64)

    def find(self, keys: Hashes, unknown: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows [T, n] of the hashes [T, n], those of `unknown` [T] where they are not there, and whether they are."""
        if keys.shape[1] == 1:
            return self._find_one(keys.ravel().tolist(), unknown.tolist())
        # The hashes' lowest bits; what comes here is already mixed.
        bucket = (keys & self._last).view(np.int64)
        lines = np.empty((*keys.shape, WIDTH), dtype=np.uint64)
        for table, index in enumerate(self._indexes):
            index.hashes.take(bucket[table], axis=0, out=lines[table], mode="clip")
        # Eight answers are one word, of which at most one byte is set: keys are distinct.
        same = (lines == keys[..., None]).view("<u8")[..., 0]
        # The null hash equals an empty slot.
        is_known = (same != 0) & (keys != NULL_HASH)
        slot = bucket * WIDTH + ((same * _BYTES) >> _TOP).view(np.int64)
        rows = np.empty(keys.shape, dtype=np.int32)
        for table, of_slot in enumerate(self._rows):
            of_slot.take(slot[table], out=rows[table], mode="clip")
        rows_of_keys = np.where(is_known, rows, unknown[:, None])
        if not is_known.all():
            # A full bucket may have sent its key on.
            may_be_next = (lines[..., WIDTH - 1] != NULL_HASH) & ~is_known
            for table in np.flatnonzero(may_be_next.any(axis=1)).tolist():
                self._probe_next_buckets(
                    table, keys[table], bucket[table], may_be_next[table], rows_of_keys[table], is_known[table]
                )
        return rows_of_keys, is_known

    def _find_one(self, keys: list[int], unknown: list[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """As `find` for one hash per index: a user's look-ups, for which arrays cost more than the search."""
        slots = [index.slot_of(key) for index, key in zip(self._indexes, keys, strict=True)]
        rows = [
            of_slot[slot] if slot >= 0 else none for of_slot, slot, none in zip(self._rows, slots, unknown, strict=True)
        ]
        return np.array(rows, dtype=np.int64)[:, None], np.array(slots)[:, None] >= 0

    def _probe_next_buckets(
        self,
        table: int,
        keys: Hashes,
        bucket: NDArray[np.int64],
        may_be_next: NDArray[np.bool_],
        rows_of_keys: NDArray[np.int64],
        is_known: NDArray[np.bool_],
    ) -> None:
        """Look into the next buckets of one index, into `rows_of_keys` and `is_known` [n]; one step finds most."""
        hashes, rows = self._indexes[table].hashes, self._rows[table]
        pending = np.flatnonzero(may_be_next)
        for step in range(1, len(hashes)):
            if not len(pending):
                return
            next_bucket = (bucket[pending] + step) % len(hashes)
            lines = hashes.take(next_bucket, axis=0)
            same = lines == keys[pending, None]
            hit = same.any(axis=1) & (keys[pending] != NULL_HASH)
            rows_of_keys[pending[hit]] = rows[next_bucket[hit] * WIDTH + same[hit].argmax(axis=1)]
            is_known[pending[hit]] = True
            pending = pending[~hit & (lines[:, WIDTH - 1] != NULL_HASH)]


def _home(hashes: Hashes, buckets: int) -> NDArray[np.int64]:
    """The hashes' lowest bits; what comes here is already mixed."""
    return (hashes & np.uint64(buckets - 1)).view(np.int64)
