"""An open-addressing index from 64-bit hashes to rows that works as it lies in a file.

Buckets of eight slots, one cache line each; a key lies in its home bucket or, where that is full, in the next one with
room, so that one comparison of eight slots finds nearly every key and a bucket with an empty slot ends the search.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from features.hashing import NULL_HASH, Hashes

WIDTH = 8
_LARGEST_LOAD = 0.5


@dataclass(frozen=True)
class SlotIndex:
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

    def find(self, wanted: Hashes, unknown: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row [n] of each hash, `unknown` where it is not there, and whether it is."""
        bucket = _home(wanted, len(self.hashes))
        found, known, further = self._look(wanted, bucket, unknown)
        places = np.flatnonzero(further)
        # A full bucket may have sent its key on; nearly all searches end with the first look or the second.
        for _ in range(len(self.hashes) - 1):
            if not len(places):
                break
            bucket[places] = (bucket[places] + 1) % len(self.hashes)
            found[places], known[places], further = self._look(wanted[places], bucket[places], unknown)
            places = places[further]
        return found, known

    def _look(
        self, wanted: Hashes, bucket: NDArray[np.int64], unknown: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Look into one bucket each: row [n], whether it is there, and whether it may lie further on."""
        lines = self.hashes.take(bucket, axis=0)
        place = (lines == wanted[:, None]).argmax(axis=1)
        place += bucket * WIDTH
        # The null hash equals an empty slot.
        known = (self.hashes.ravel().take(place) == wanted) & (wanted != NULL_HASH)
        full = lines[:, WIDTH - 1] != NULL_HASH
        return np.where(known, self.rows.ravel().take(place), unknown), known, full & ~known


def _home(hashes: Hashes, buckets: int) -> NDArray[np.int64]:
    """The hashes' lowest bits; what comes here is already mixed."""
    return (hashes & np.uint64(buckets - 1)).view(np.int64)
