"""How many cores this process may use: the machine's, or fewer by its affinity or a control group's (a container's)."""

import os
from collections.abc import Iterator
from pathlib import Path

from contract.control_groups import groups_around


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may keep busy, at least 1; a part of a core counts as one.

    A quota of time shows neither in the affinity nor, as of Python 3.13, in `os.process_cpu_count`.

    Args:
        root: Where ``/proc`` and ``/sys`` stand.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    return min([len(os.sched_getaffinity(0)), *_quotas(root)])


def _quotas(root: Path) -> Iterator[int]:
    """The quota of each group around this process that has one, in cores, rounded up."""
    for group in groups_around("cpu", root):
        if group.version == 1:
            words = [*group.words("cpu.cfs_quota_us"), *group.words("cpu.cfs_period_us")]
        else:
            words = group.words("cpu.max")
        # The first version says -1, the second `max`, where there is none.
        quota, period = (int(word) if word.isdigit() else 0 for word in (*words, "", "")[:2])
        if quota and period:
            yield -(-quota // period)
