"""Decoded row groups that stay in memory from the first window with rows of them to the last."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

from features.epoch_order import RowBlock

T = TypeVar("T")


class HeldGroups(Generic[T]):
    """The rows of an epoch's windows, of which each row group is decoded once; several threads may ask at a time.

    `read` returns the rows of row groups, by number.
    """

    def __init__(self, windows: Sequence[Sequence[RowBlock]], read: Callable[[list[int]], list[T]]) -> None:
        self._windows, self._read = windows, read
        self._last = {block.group: number for number, window in enumerate(windows) for block in window}
        self._held: dict[int, Future[T]] = {}
        self._lock = Lock()

    def window(self, number: int) -> list[tuple[T, RowBlock]]:
        """A window's blocks, each with its row group; windows before it have been asked for, or are not any more."""
        blocks = self._windows[number]
        groups = list(dict.fromkeys(block.group for block in blocks))
        with self._lock:
            missing = [group for group in groups if group not in self._held]
            self._held |= {group: Future() for group in missing}
            held = {group: self._held[group] for group in groups}
        self._decode({group: held[group] for group in missing})
        rows = [(held[block.group].result(), block) for block in blocks]
        with self._lock:
            self._held = {group: future for group, future in self._held.items() if self._last[group] > number}
        return rows

    def _decode(self, missing: dict[int, "Future[T]"]) -> None:
        """Read row groups for all threads that wait for them; an error is for all, too."""
        if not missing:
            return
        try:
            groups = self._read(list(missing))
        except BaseException as error:
            for waiting in missing.values():
                waiting.set_exception(error)
            raise
        for rows, waiting in zip(groups, missing.values(), strict=True):
            waiting.set_result(rows)
