"""Values that were pushed between two versions of a model: raw, and encoded with the request that reads them."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.hashing import Hashes
from features.encode.encoder import Lists
from features.online.request_values import Value


class PushedColumn(NamedTuple):
    """One feature's pushed values, for the rows [k] of its side that have one: of the user's side, row 0."""

    side: Literal["user", "item"]
    name: str
    rows: NDArray[np.int64]
    values: Sequence[Value]


class PushedSource(Protocol):
    """Where pushed values are looked up."""

    def entities(self, user: int | str | None, items: Sequence[int | str]) -> Iterable[PushedColumn]:
        """Values of a user and of candidates."""

    def pairs(self, side: Literal["user", "item"], keys: tuple[str, ...], hashes: Hashes) -> Iterable[PushedColumn]:
        """Values that hang on tuples of keys, whose combined hashes [rows] are given."""

    def refuse(self, name: str, error: RequestError) -> None:
        """A value cannot be encoded for this model, and was left out."""


def spliced(lists: Lists, rows: NDArray[np.int64], fresh: Lists) -> Lists:
    """`lists` with the lists of some rows replaced."""
    parts = np.split(lists.values, np.cumsum(lists.lengths)[:-1])
    lengths = lists.lengths.copy()
    for row, part in zip(rows.tolist(), np.split(fresh.values, np.cumsum(fresh.lengths)[:-1]), strict=True):
        parts[row], lengths[row] = part, len(part)
    return Lists(np.concatenate(parts), lengths)
