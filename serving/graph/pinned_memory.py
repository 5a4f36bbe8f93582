"""Arrays in page-locked memory, which a card reads without a copy of the driver's own.

onnxruntime's Python names no allocator of such memory, so pages are locked by CUDA's runtime, which onnxruntime-gpu has
loaded by then. Without it arrays lie in plain memory, and everything answers alike.

Source: CUDA Runtime API, cudaHostRegister.
"""

import ctypes
import mmap
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RUNTIMES = ("libcudart.so.13", "libcudart.so.12")
"""As onnxruntime-gpu names the library that it is built against."""

_MAPPED = ctypes.c_uint(2)
"""cudaHostRegisterMapped: a card's kernels may read the pages where they lie."""


class _LockedPages(mmap.mmap):
    """Pages that are unlocked before they go back to the system.

    A weak reference's finalizer would run after that, when another array may have the address already.
    """

    unlock: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.unlock is not None:
            self.unlock()


def pinned_zeros(shape: Sequence[int], dtype: type[np.generic]) -> NDArray[Any]:
    """Zeros [shape], in locked pages of their own where a card's runtime is to be had.

    Example:
        >>> pinned_zeros((2, 3), np.float32).sum()
        np.float32(0.0)
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    # Whole pages: one that two arrays shared could not be locked twice.
    pages = _LockedPages(-1, max(size, 1))
    array: NDArray[Any] = np.frombuffer(pages, dtype, count=int(np.prod(shape))).reshape(shape)
    runtime = _runtime()
    if runtime is not None:
        address = ctypes.c_void_p(array.ctypes.data)
        if runtime.cudaHostRegister(address, ctypes.c_size_t(len(pages)), _MAPPED) == 0:
            pages.unlock = partial(runtime.cudaHostUnregister, address)
    return array


def device_address(array: NDArray[Any]) -> int | None:
    """Where a card's kernels find an array of `pinned_zeros`; None if its pages are not locked."""
    runtime, found = _runtime(), ctypes.c_void_p()
    here = ctypes.c_void_p(array.ctypes.data)
    if runtime is None or runtime.cudaHostGetDevicePointer(ctypes.byref(found), here, ctypes.c_uint(0)) != 0:
        return None
    return found.value


def free_bytes() -> int | None:
    """What the card has left; None without one."""
    runtime, free, total = _runtime(), ctypes.c_size_t(), ctypes.c_size_t()
    if runtime is None or runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) != 0:
        return None
    return free.value


@cache
def _runtime() -> ctypes.CDLL | None:
    """CUDA's runtime if it finds a card."""
    for name in _RUNTIMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int()
        if library.cudaGetDeviceCount(ctypes.byref(count)) == 0 and count.value:
            return library
    return None
