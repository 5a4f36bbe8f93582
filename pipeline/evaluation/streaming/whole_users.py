"""The rows of whole users within a budget of memory: all of them, or of a share of the users chosen by their hashes.

A user is kept with all rows or not at all, so that metrics of users' lists and clustered intervals are right on what is
kept. The choice depends on the users alone, so states of parts of the rows choose the same ones.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contract.hashing import NULL_HASH, mix
from pipeline.evaluation.predictions import Predictions, joined
from pipeline.evaluation.streaming.mergeable import Arrays, nested, part_of


def unit_hashes(rows: Predictions, first_row: int) -> NDArray[np.uint64]:
    """An even hash of each row's user [n]; of the row itself where it has none."""
    numbers = np.arange(first_row, first_row + rows.rows, dtype=np.uint64)
    return mix(np.where(rows.user == NULL_HASH, numbers, rows.user) if rows.grouped else numbers)


@dataclass
class WholeUsers:
    """Rows of the users whose hash is under 2**64 / 2**`halvings`; `numbers` are the rows' numbers in the pass."""

    most: int
    halvings: int = 0
    parts: list[Predictions] = field(default_factory=list)
    numbers: list[NDArray[np.int64]] = field(default_factory=list)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that are kept."""
        return sum(part.rows for part in self.parts)

    def update(self, rows: Predictions, hashes: NDArray[np.uint64], first_row: int) -> None:
        """Add a stretch of rows."""
        self.parts.append(rows)
        self.hashes.append(hashes)
        self.numbers.append(np.arange(first_row, first_row + rows.rows))
        if self.halvings:
            self._choose(len(self.parts) - 1)

    def merge(self, other: Self) -> None:
        """Add the rows of another state, and keep the smaller share of the two."""
        self.parts += other.parts
        self.numbers += other.numbers
        self.hashes += other.hashes
        if self.halvings != other.halvings:
            self.halvings = max(self.halvings, other.halvings)
            self._choose(0)

    @property
    def is_full(self) -> bool:
        """Whether there are more rows than may be kept."""
        return self.rows > self.most

    def halve(self) -> None:
        """Keep half the users, as often as it takes."""
        while self.is_full:
            self.halvings += 1
            self._choose(0)

    def _choose(self, first: int) -> None:
        """Leave out users beyond the share, from one of the parts on."""
        for place in range(first, len(self.parts)):
            kept = np.flatnonzero(self.hashes[place] >> np.uint64(64 - self.halvings) == 0)
            if kept.size < self.parts[place].rows:
                self.parts[place] = self.parts[place].take(kept)
                self.hashes[place] = self.hashes[place][kept]
                self.numbers[place] = self.numbers[place][kept]

    def finish(self) -> tuple[Predictions, NDArray[np.int64]]:
        """The rows that are kept and their numbers, in the order of the pass."""
        rows, numbers = joined(self.parts), np.concatenate(self.numbers)
        if (np.diff(numbers) >= 0).all():
            return rows, numbers
        order = np.argsort(numbers, kind="stable")
        return rows.take(order), numbers[order]

    def arrays(self) -> Arrays:
        """See `Mergeable`; the tasks and their kinds are the caller's to keep."""
        state: Arrays = {"limits": np.array([self.most, self.halvings])}
        if self.parts:
            rows = joined(self.parts)
            state |= nested(rows=rows.by_row())
            state |= {"numbers": np.concatenate(self.numbers), "hashes": np.concatenate(self.hashes)}
        return state

    @classmethod
    def from_arrays(cls, arrays: Arrays, like: Predictions | None = None) -> Self:
        """See `Mergeable`; `like` says the tasks."""
        most, halvings = (int(number) for number in arrays["limits"])
        state = cls(most, halvings)
        if like is not None and "numbers" in arrays:
            by_row: dict[str, Any] = dict(part_of(arrays, "rows"))
            state.parts = [replace(like, **by_row)]
            state.numbers, state.hashes = [arrays["numbers"]], [arrays["hashes"]]
        return state
