"""Freed memory of the host that stays with the process while it trains.

glibc gives large blocks back to the system when they are freed, and the system clears each of their pages when they
are asked for again: with 4,096 rows in float32 that was a tenth of a step, 20,000 page faults.
"""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIM, _MMAP = -1, -3
"""What glibc's malloc.h calls M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: from how many bytes on memory is given back."""
_KEPT = 2**30
"""More than any matrix of a step has; tables, which are made once, may be larger."""
_USUAL = 2**25
"""As far as glibc raises its own thresholds."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep blocks of up to a gigabyte when they are freed, and give all back at the end; on other systems, nothing.

    What is still held at the end is not given back, and may never be. As a decorator it ends after the call's own.

    Example::

        @freed_memory_kept()
        def train(): ...  # steps, each of which needs the memory of the one before
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    change: Callable[[int, int], int] | None = getattr(libc, "mallopt", None)
    if change is None:
        yield
        return
    # glibc before 2.35 takes no more than the usual, and then keeps what is smaller.
    change(_MMAP, _KEPT) or change(_MMAP, _USUAL)
    change(_TRIM, _KEPT)
    try:
        yield
    finally:
        change(_MMAP, _USUAL)
        change(_TRIM, 2 * _USUAL)
        gc.collect()  # modules are in circles
        ctypes.CDLL(None).malloc_trim(0)
