"""The threads that answer calls, how much work waits for them, and relief from callers who send nothing.

grpcio's synchronous server takes a thread for a call before the call's message has arrived. A caller who opens calls
and never sends would so hold every thread; for each such thread the pool adds one.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
PATIENCE_SECONDS = 0.5
"""How long a message may take to arrive before its thread is replaced."""
MOST_REPLACED = 256


class CountingPool(ThreadPoolExecutor):
    """A thread pool that knows how many calls wait or run, and how long the present one has waited."""

    def __init__(self, threads: int) -> None:
        """Have so many threads; as many as cores is best, for each call keeps a core busy."""
        super().__init__(threads, thread_name_prefix="moerank")
        self._threads_wanted = threads
        self._idle = threading.Condition()
        self._pending = 0
        self._stuck = 0
        self._receiving: dict[int, float] = {}
        self._local = threading.local()
        self._ended = threading.Event()
        self._relief = threading.Thread(target=self._relieve, name="moerank-relief", daemon=True)
        self._relief.start()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """As `ThreadPoolExecutor.submit`, counted until it has run."""
        with self._idle:
            self._pending += 1
        submitted = time.perf_counter()

        def counted() -> R:
            began = time.perf_counter()
            self._local.waited = began - submitted
            self._receiving[threading.get_ident()] = began
            try:
                return fn(*args, **kwargs)
            finally:
                self.received()
                self._finished()

        try:
            return super().submit(counted)
        except BaseException:
            self._finished()
            raise

    def received(self) -> None:
        """The call of this thread has its message; from now on the thread works."""
        self._receiving.pop(threading.get_ident(), None)

    @property
    def pending(self) -> int:
        """Calls that wait or run, without those whose message does not arrive."""
        return self._pending - self._stuck

    def waited(self) -> float:
        """How many seconds the call of this thread waited for it."""
        waited: float = getattr(self._local, "waited", 0.0)
        return waited

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no call waits or runs; whether that was so in time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 as in the base
        """As `ThreadPoolExecutor.shutdown`."""
        self._ended.set()
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _finished(self) -> None:
        with self._idle:
            self._pending -= 1
            if self._pending == 0:
                self._idle.notify_all()

    def _relieve(self) -> None:
        while not self._ended.wait(PATIENCE_SECONDS / 2):
            late = time.perf_counter() - PATIENCE_SECONDS
            stuck = sum(began < late for began in tuple(self._receiving.values()))
            more = stuck > self._stuck
            self._stuck = stuck
            self._max_workers = self._threads_wanted + min(stuck, MOST_REPLACED)
            if more:
                # The executor starts a thread only when something is submitted.
                super().submit(lambda: None)
