"""The threads that answer calls, how much work waits for them, and relief from callers who send nothing.

grpcio's synchronous server takes a thread for a call before the call's message has arrived. A caller who opens calls
and never sends would so hold every thread; for each such thread the pool adds one.

The standard library's executor does as much, at several times the cost a call.
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec

P = ParamSpec("P")
LOG = logging.getLogger("moerank.server")
PATIENCE_SECONDS = 0.5
"""How long a message may take to arrive before its thread is replaced."""
MOST_REPLACED = 256
IDLE_SECONDS = 0.005
"""How often a waiter looks whether the pool is idle."""


class PoolWork:
    """Something submitted; what grpcio asks of a future is that it tells when it has run."""

    __slots__ = ("_callbacks", "_done", "_run", "submitted")

    def __init__(self, run: Callable[[], object]) -> None:
        """To be run by a thread of the pool."""
        self._run = run
        self._callbacks: list[Callable[[Any], object]] = []
        self._done = False
        self.submitted = time.perf_counter()

    def run(self) -> None:
        """Run it; errors are the business of what is run."""
        try:
            self._run()
        except Exception:  # a thread of the pool outlives whatever it runs
            LOG.exception("work in the pool failed")
        self._done = True
        self._tell()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Call when it has run, or now if it has."""
        self._callbacks.append(callback)
        if self._done:
            self._tell()

    def _tell(self) -> None:
        # Both ends may come here at once; each callback is popped by one of them.
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:
                return
            callback(self)


class CountingPool:
    """Threads that know how many calls wait or run, and how long the present one has waited."""

    def __init__(self, threads: int) -> None:
        """Have so many threads; as many as cores is best, for each call keeps a core busy."""
        self._wanted = threads
        self._lock = threading.Lock()
        self._work: SimpleQueue[PoolWork | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._pending = 0
        self._stuck = 0
        self._receiving: dict[int, float] = {}
        self._local = threading.local()
        self._ended = threading.Event()
        for _ in range(threads):
            self._start()
        self._relief = threading.Thread(target=self._relieve, name="moerank-relief", daemon=True)
        self._relief.start()

    def submit(self, run: Callable[P, object], /, *args: P.args, **named: P.kwargs) -> PoolWork:
        """Run it on one of the threads, counted until it has run.

        Raises:
            RuntimeError: the pool was shut down.
        """
        if self._ended.is_set():
            message = "the pool was shut down"
            raise RuntimeError(message)
        with self._lock:
            self._pending += 1
        work = PoolWork(lambda: run(*args, **named))
        self._work.put(work)
        return work

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
        end = time.monotonic() + seconds
        while self._pending:
            if time.monotonic() >= end:
                return False
            time.sleep(IDLE_SECONDS)
        return True

    def shutdown(self) -> None:
        """End the threads once they have run what was submitted, and wait for them."""
        self._ended.set()
        # It starts threads.
        self._relief.join()
        with self._lock:
            threads = tuple(self._threads)
        for _ in threads:
            self._work.put(None)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name="moerank-call", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _serve(self) -> None:
        me = threading.get_ident()
        while (work := self._work.get()) is not None:
            began = time.perf_counter()
            self._local.waited = began - work.submitted
            self._receiving[me] = began
            work.run()
            self._receiving.pop(me, None)
            # What it held, such as a request's arrays, must not live until the next one comes.
            del work
            with self._lock:
                self._pending -= 1
                if len(self._threads) > self._wanted + self._stuck:
                    self._threads.discard(threading.current_thread())
                    return

    def _relieve(self) -> None:
        while not self._ended.wait(PATIENCE_SECONDS / 2):
            late = time.perf_counter() - PATIENCE_SECONDS
            self._stuck = min(sum(began < late for began in tuple(self._receiving.values())), MOST_REPLACED)
            for _ in range(self._wanted + self._stuck - len(self._threads)):
                self._start()
