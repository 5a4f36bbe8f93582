"""Read or prepare the next piece of something long in a thread while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from contract.machine_cores import usable_cores

_MOST = 4

T = TypeVar("T")
S = TypeVar("S")


def reading_threads() -> int:
    """How many pieces `read_ahead` reads at a time: half the cores, and at most four."""
    return min(max(usable_cores() // 2, 1), _MOST)


def enough_decoding_threads() -> None:
    """Let Arrow decode in as many threads as read, at least, in the whole process.

    It takes as many as OMP_NUM_THREADS says, one under torchrun, for which all that read would wait.
    """
    pa.set_cpu_count(max(pa.cpu_count(), reading_threads()))


def read_ahead(reads: Iterator[Callable[[], T]]) -> Iterator[T]:
    """What each function reads, in order; the next ones are being read meanwhile.

    On many cores up to four are read at a time, because one thread reads slower than a card trains; eight gained
    nothing over four there.

    What is to be read is decided in the caller's thread, beside the reading: in the reader's own, as `prepared_ahead`
    does it, an epoch of mixed rows took a twentieth to a tenth longer.
    """
    workers = reading_threads()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read-ahead") as reader:
        waiting: deque[Future[T]] = deque()
        for read in reads:
            waiting.append(reader.submit(read))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def prepared_ahead(items: Iterator[S], prepare: Callable[[S], T], at_once: int = 1) -> Iterator[T]:
    """What `prepare` makes of each item; a thread asks for the next ones, and as many as `at_once` prepare meanwhile.

    Example:
        >>> list(prepared_ahead(iter([1, 2]), str))
        ['1', '2']
    """
    with (
        ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="prepare-ahead") as workers,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare-ahead") as asking,
    ):

        def following() -> list[Future[T]]:
            return [workers.submit(prepare, item) for item in islice(items, 1)]

        coming = deque(asking.submit(following) for _ in range(at_once))
        while prepared := coming.popleft().result():
            coming.append(asking.submit(following))
            yield prepared[0].result()
