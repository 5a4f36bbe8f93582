"""The threads that answer calls, and how much work waits for them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class CountingPool(ThreadPoolExecutor):
    """A thread pool that knows how many calls wait or run, and how long the present one has waited."""

    def __init__(self, threads: int) -> None:
        """Have so many threads; as many as cores is best, for each call keeps a core busy."""
        super().__init__(threads, thread_name_prefix="moerank")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._pending = 0
        self._local = threading.local()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """As `ThreadPoolExecutor.submit`, counted until it has run."""
        with self._lock:
            self._pending += 1
        submitted = time.perf_counter()

        def counted() -> R:
            self._local.waited = time.perf_counter() - submitted
            try:
                return fn(*args, **kwargs)
            finally:
                self._finished()

        try:
            return super().submit(counted)
        except BaseException:
            self._finished()
            raise

    @property
    def pending(self) -> int:
        """Calls that wait or run."""
        return self._pending

    def waited(self) -> float:
        """How many seconds the call of this thread waited for it."""
        waited: float = getattr(self._local, "waited", 0.0)
        return waited

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no call waits or runs; whether that was so in time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, seconds)

    def _finished(self) -> None:
        with self._idle:
            self._pending -= 1
            if self._pending == 0:
                self._idle.notify_all()
