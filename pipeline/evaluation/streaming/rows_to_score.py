"""Which rows nobody scores yet: one process takes them from the front, the others from the back."""

import threading
from dataclasses import dataclass, field

from pipeline.evaluation import predictions

_LEAST_BATCHES = 12
"""A stretch of fewer costs more in reading than it saves in waiting."""


@dataclass
class RowsToScore:
    """Rows `front` to `back` in the order of reading; used by several threads, and always whole batches are taken.

    Example:
        >>> rows = RowsToScore(100_000, workers=2)
        >>> rows.take_first(4096), rows.take_last(), rows.take_last()
        (True, (73728, 100000), (49152, 73728))
    """

    back: int
    workers: int
    front: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take_first(self, end: int) -> bool:
        """Take the batch that ends at `end`; False where another has taken it."""
        with self._lock:
            free = end <= self.back
            self.front = end if free else self.front
            return free

    def take_last(self) -> tuple[int, int] | None:
        """Take a stretch from the back, the shorter the less is left, so that all end together; None: nothing left."""
        with self._lock:
            batch = predictions.BATCH_ROWS
            share = (self.back - self.front) // (2 * self.workers)
            begin = (self.back - max(share, _LEAST_BATCHES * batch)) // batch * batch
            begin, end = max(begin, self.front), self.back
            if begin >= end:
                return None
            self.back = begin
            return begin, end

    def stop(self) -> None:
        """Leave the rest: somebody failed."""
        with self._lock:
            self.back = self.front
