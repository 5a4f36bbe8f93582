"""Random numbers by row of the global batch: a row meets the same noise on one rank as on several.

On one rank nothing changes. On several, all ranks seed alike, each draws the numbers of all rows, and takes those of
its own: the price is that every rank draws for all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class RowShare(NamedTuple):
    """The rows `first` to `last` of a batch of `total` rows on all ranks; the first `repeated` are another rank's."""

    first: int
    last: int
    total: int
    repeated: int = 0


_share: ContextVar[RowShare | None] = ContextVar("row_share", default=None)


@contextmanager
def rows_of_batch(share: RowShare | None) -> Iterator[None]:
    """Say which part of the global batch a forward pass sees; None: all of it."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def repeated_rows() -> int:
    """How many rows at the head of this rank's part count for another rank."""
    share = _share.get()
    return 0 if share is None else share.repeated


def is_shared() -> bool:
    """Whether the batch is spread over several ranks."""
    return _share.get() is not None


def draw_rows(draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...]) -> Tensor:
    """Random numbers of a shape that begins with the rows of this rank's part; other shapes are drawn as they are.

    Example:
        >>> import torch
        >>> with rows_of_batch(RowShare(2, 4, 6)):
        ...     draw_rows(torch.zeros, (2, 3)).shape
        torch.Size([2, 3])
    """
    share = _share.get()
    if share is None or shape[0] != share.last - share.first:
        return draw(shape)
    return draw((share.total, *shape[1:]))[share.first : share.last]
