"""How many ids each list of a batch holds, told by the host.

TorchRec asks for it, to bring features into the order of their shards. A host that has the batch knows; asking a card
instead means to wait, in each step, for all that it was given.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from contract.inputs import Inputs

_lists: ContextVar[tuple[list[int], list[int]] | None] = ContextVar("list_counts", default=None)


@contextmanager
def lists_of(inputs: Inputs) -> Iterator[None]:
    """Say which batch a forward pass sees."""
    counts = (inputs.request.list_lengths.sum(axis=1).tolist(), inputs.candidate.list_lengths.sum(axis=1).tolist())
    token = _lists.set(counts)
    try:
        yield
    finally:
        _lists.reset(token)


def ids_per_feature(rows: int, singles: tuple[int, int], lists: tuple[int, int]) -> list[int] | None:
    """How many ids each feature has, part by part: `singles` features with one a row, then `lists` features.

    None where there are lists and nobody told how long they are.

    Example:
        >>> ids_per_feature(7, (2, 1), (0, 0))
        [7, 7, 7]
        >>> ids_per_feature(7, (2, 1), (1, 0)) is None
        True
    """
    told = _lists.get()
    if told is None:
        told = None if any(lists) else ([], [])
    if told is None or tuple(map(len, told)) != lists:
        return None
    return [count for number, own in zip(singles, told, strict=True) for count in [*[rows] * number, *own]]
