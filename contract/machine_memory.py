"""How much memory this process may use: the machine's, or less where a control group (a container) allows less."""

from collections.abc import Iterator
from pathlib import Path

import psutil

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
    membership = root / "proc/self/cgroup"
    for line in membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root / "sys/fs/cgroup", _V2
        elif "memory" in controllers.split(","):
            mount, names = root / "sys/fs/cgroup/memory", _V1
        else:
            continue
        own = mount / path.strip("/")
        # Within a container the path may be the host's, which cannot be seen: the mount itself is the group then.
        for group in (own, *own.parents):
            limit, used = (_number(group / name) for name in names)
            if limit is not None:
                yield limit, used or 0
            if group == mount:
                break


def _number(path: Path) -> int | None:
    """What the file says, or None where there is none or it says ``max``."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
