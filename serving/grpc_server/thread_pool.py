"""The threads that answer calls, and how much work waits for them.

The standard library's executor does as much, at several times the cost a call.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec

P = ParamSpec("P")
LOG = logging.getLogger("moerank.server")
IDLE_SECONDS = 0.005
"""How often a waiter looks whether the pool is idle."""


class CountingPool:
    """Threads that know how many calls wait or run, and how long the present one has waited.

    Example:
        >>> pool = CountingPool(1)
        >>> answers: list[str] = []
        >>> pool.submit(answers.append, "answered")
        >>> pool.wait_idle(5)
        True
        >>> pool.shutdown()
    """

    def __init__(self, threads: int) -> None:
        """Have so many threads; as many as cores is best, for each call keeps a core busy."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[tuple[Callable[[], object], float] | None] = SimpleQueue()
        self._pending = 0
        self._local = threading.local()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._serve, name="moerank-call", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, run: Callable[P, object], /, *args: P.args, **named: P.kwargs) -> None:
        """Run it on one of the threads, counted until it has run; errors are the business of what is run.

        Raises:
            RuntimeError: the pool was shut down.
        """
        if self._ended.is_set():
            message = "the pool was shut down"
            raise RuntimeError(message)
        with self._lock:
            self._pending += 1
        self._work.put((lambda: run(*args, **named), time.perf_counter()))

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
        end = time.monotonic() + seconds
        while self._pending:
            if time.monotonic() >= end:
                return False
            time.sleep(IDLE_SECONDS)
        return True

    def shutdown(self) -> None:
        """End the threads once they have run what was submitted, and wait for them."""
        self._ended.set()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            run, submitted = work
            self._local.waited = time.perf_counter() - submitted
            try:
                run()
            except Exception:  # a thread of the pool outlives whatever it runs
                LOG.exception("work in the pool failed")
            # What it held, such as a request's arrays, must not live until the next one comes.
            del work, run
            with self._lock:
                self._pending -= 1
