"""Values that were pushed between two versions of a model: raw, and encoded with the request that reads them."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.hashing import Hashes
from features.encode.moment_values import Value
from features.point_in_time.ragged import Ragged


class PushedColumn(NamedTuple):
    """One feature's pushed values, for the rows [k] of its side that have one: of the user's side, row 0."""

    side: Literal["user", "item"]
    name: str
    rows: NDArray[np.int64]
    values: Sequence[Value]
    is_stale: bool = False
    """Whether the values are too old to be used, so that they are only reported."""


class PushedSource(Protocol):
    """Where pushed values are looked up."""

    def entities(self, user: int | str | None, items: Sequence[int | str]) -> Iterable[PushedColumn]:
        """Values of a user and of candidates."""

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterable[PushedColumn]:
        """Values that hang on tuples of keys, whose combined hashes [rows] are given."""

    def refuse(self, name: str, error: RequestError) -> None:
        """A value cannot be encoded for this model, and was left out."""


def spliced(lists: Ragged, rows: NDArray[np.int64], fresh: Ragged) -> Ragged:
    """`lists` with the lists of some rows replaced."""
    parts = lists.split()
    for row, part in zip(rows.tolist(), fresh.split(), strict=True):
        parts[row] = part
    return Ragged.packed(np.concatenate(parts), np.array([len(part) for part in parts]))
