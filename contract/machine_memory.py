"""How much memory this process may use: the machine's, or less where a control group (a container) allows less."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from contract.control_groups import groups_around

_V2, _V1 = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def total_memory(root: Path = Path("/")) -> int:
    """All bytes of the machine, free or not; the same at every call.

    Args:
        root: Where ``/proc`` and ``/sys`` stand.

    Example:
        >>> 2**20 < total_memory() <= psutil.virtual_memory().total
        True
    """
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _limits(root))])


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that are free now; `root` as in `total_memory`."""
    return min([int(psutil.virtual_memory().available), *(max(0, limit - used) for limit, used in _limits(root))])


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """The limit and the use of each control group around this process that has a limit, in bytes."""
    for group in groups_around("memory", root):
        limit, used = (group.number(name) for name in (_V1 if group.version == 1 else _V2))
        if limit is not None:
            yield limit, used or 0
