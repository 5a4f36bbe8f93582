"""Decoded row groups that stay in memory from the first window with rows of them to the last."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock

import pyarrow as pa

from features.epoch_order import RowBlock


class HeldGroups:
    """The rows of an epoch's windows, of which each row group is decoded once; several threads may ask at a time.

    `read` returns the rows of row groups, by number, one after the other.
    """

    def __init__(
        self, windows: Sequence[Sequence[RowBlock]], sizes: Sequence[int], read: Callable[[list[int]], pa.Table]
    ) -> None:
        self._windows, self._sizes, self._read = windows, sizes, read
        self._last = {block.group: number for number, window in enumerate(windows) for block in window}
        self._tables: dict[int, Future[pa.Table]] = {}
        self._lock = Lock()

    def window(self, number: int) -> pa.Table:
        """A window's rows, block after block; windows before it have been asked for, or are not any more."""
        blocks = self._windows[number]
        groups = list(dict.fromkeys(block.group for block in blocks))
        with self._lock:
            missing = [group for group in groups if group not in self._tables]
            self._tables |= {group: Future() for group in missing}
            tables = {group: self._tables[group] for group in groups}
        self._decode({group: tables[group] for group in missing})
        rows = pa.concat_tables([tables[block.group].result().slice(block.begin, block.rows) for block in blocks])
        with self._lock:
            self._tables = {group: table for group, table in self._tables.items() if self._last[group] > number}
        return rows

    def _decode(self, missing: dict[int, "Future[pa.Table]"]) -> None:
        """Read row groups for all threads that wait for them; an error is for all, too."""
        if not missing:
            return
        try:
            table, begin = self._read(list(missing)), 0
        except BaseException as error:
            for waiting in missing.values():
                waiting.set_exception(error)
            raise
        for group, waiting in missing.items():
            waiting.set_result(table.slice(begin, self._sizes[group]))
            begin += self._sizes[group]
