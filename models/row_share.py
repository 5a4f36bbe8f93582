"""Random numbers by row of the global batch: a row meets the same noise on one rank as on several.

On one rank nothing changes. On several, all ranks seed alike, each draws the numbers of all rows, and takes those of
its own: the price is that every rank draws for all.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.distributed as dist
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


def places_in_batch(counts_F: list[int], repeated_F: list[int]) -> tuple[list[int], int]:
    """Where this rank's values begin among those of the whole batch, feature by feature, and how many those are in all.

    Ranks tell each other how many `counts_F` they hold of each feature, of which `repeated_F` belong to rows that count
    for the rank before; all ranks must ask together.
    """
    repeated = torch.tensor(repeated_F)
    counts_RF, rank = _of_all_ranks(torch.tensor(counts_F) - repeated)
    totals_F = counts_RF.sum(dim=0)
    begins_F = totals_F.cumsum(dim=0) - totals_F + counts_RF[:rank].sum(dim=0) - repeated
    return begins_F.tolist(), int(totals_F.sum())


def _of_all_ranks(own_F: Tensor) -> tuple[Tensor, int]:
    """Everybody's numbers, [ranks, F], and which are this rank's."""
    everyones = [torch.empty_like(own_F) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, own_F)
    return torch.stack(everyones), dist.get_rank()


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
