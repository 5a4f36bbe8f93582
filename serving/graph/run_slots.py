"""The buffers of runs in fixed sizes, and those among them that no run uses at the moment."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64] | NDArray[np.float32]
IDLE_BYTES = 2**28
"""Most that a graph keeps for later runs: 256 slots of 4,096 candidates with 30 ids; lists have the large ones."""


@dataclass(frozen=True)
class RunSlot:
    """The buffers of one size: arrays to fill, their copies on the device, and the binding of both."""

    staged: dict[str, Array]
    given: dict[str, Any]
    answers: dict[str, Any]
    binding: Any
    options: Any

    @property
    def bytes(self) -> int:
        """Of all that goes in, which a card holds a second time."""
        return sum(array.nbytes for array in self.staged.values())

    def fill(self, name: str, array: Array) -> None:
        """Copy an array into the head of its buffer; what stands behind it becomes 0."""
        buffer = self.staged[name]
        head = tuple(slice(size) for size in array.shape)
        if array.shape != buffer.shape:
            buffer.fill(0)
        buffer[head] = array
        if self.given[name].device_name() != "cpu":
            self.given[name].update_inplace(buffer)


class IdleSlots:
    """Slots between their runs: any thread takes one; beyond the bound, sizes not used for longest go."""

    def __init__(self, most_bytes: int = IDLE_BYTES) -> None:
        """Keep none yet."""
        self.bytes = 0
        """Of all slots that are kept."""
        self._most, self._lock = most_bytes, threading.Lock()
        self._slots: dict[Hashable, list[RunSlot]] = {}

    def take(self, size: Hashable) -> RunSlot | None:
        """A slot of this size, for one run; None if none is idle."""
        with self._lock:
            slots = self._slots.pop(size, [])
            if not slots:
                return None
            slot = slots.pop()
            if slots:
                self._slots[size] = slots
            self.bytes -= slot.bytes
            return slot

    def give_back(self, size: Hashable, slot: RunSlot) -> None:
        """Keep a slot whose run has ended, but not one that is larger than all that may be kept."""
        if slot.bytes > self._most:
            return
        dropped = []
        with self._lock:
            # At the end, as what was used last.
            slots = self._slots.pop(size, [])
            slots.append(slot)
            self._slots[size] = slots
            self.bytes += slot.bytes
            while self.bytes > self._most:
                oldest = next(iter(self._slots))
                dropped.append(self._slots[oldest].pop(0))
                self.bytes -= dropped[-1].bytes
                if not self._slots[oldest]:
                    del self._slots[oldest]
        # Pages are unlocked when nobody waits for this lock.
        del dropped
