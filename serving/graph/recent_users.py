"""Users whose rows a store gave a moment ago, for callers that send one user's candidates page by page.

What is kept belongs to one version of a model, which makes its own: a new version asks the store anew. Pushed features
are not part of a row and are read with each request.
"""

import threading
import time
from collections.abc import Callable
from itertools import islice

from features.online.online_table import TableRows


class RecentUsers:
    """The last rows by the user's hash, at most `most` and none older than `seconds`; safe to share between threads.

    Example::

        recent = RecentUsers(seconds=5.0, most=100_000)
        recent.put(7, row)
        recent.get(7)  # the row, for five seconds
    """

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep nothing yet; with 0 `seconds` nothing ever."""
        self._seconds, self._most, self._clock = seconds, most, clock
        self._lock = threading.Lock()
        # All live equally long, so that the first is always the oldest.
        self._rows: dict[int, tuple[float, TableRows]] = {}

    def get(self, user: int) -> TableRows | None:
        """What is kept of a user."""
        if not self._seconds:
            return None
        with self._lock:
            kept = self._rows.get(user)
            if kept is None or kept[0] < self._clock():
                return None
        # A request notes there that a pushed value made a user known.
        return kept[1]._replace(known=kept[1].known.copy())

    def put(self, user: int, rows: TableRows) -> None:
        """Keep what the store gave."""
        if not self._seconds:
            return
        with self._lock:
            now = self._clock()
            self._rows.pop(user, None)
            self._rows[user] = now + self._seconds, rows._replace(known=rows.known.copy())
            # Two go for one that comes, so that what nobody asks for any more does not stay.
            for oldest in list(islice(self._rows, 2)):
                if self._rows[oldest][0] < now or len(self._rows) > self._most:
                    del self._rows[oldest]

    def __len__(self) -> int:
        """How many users are kept."""
        return len(self._rows)
