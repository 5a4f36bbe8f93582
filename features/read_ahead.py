"""Read or prepare the next piece of something long in a thread while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from contract.machine_cores import usable_cores

_MOST = 4

T = TypeVar("T")
S = TypeVar("S")


def read_ahead(pieces: Iterator[tuple[Callable[[], T], int, int]]) -> Iterator[tuple[T, int, int]]:
    """What each function reads, with the two numbers that came with it; the next ones are being read meanwhile.

    On many cores up to four are read at a time, because one thread reads slower than a card trains; eight gained
    nothing over four there.

    What is to be read is decided in the caller's thread, beside the reading: in the reader's own, as `prepared_ahead`
    does it, an epoch of mixed rows took a twentieth to a tenth longer.
    """
    workers = min(max(usable_cores() // 2, 1), _MOST)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="read-ahead") as reader:
        waiting: deque[tuple[Future[T], int, int]] = deque()
        for read, first, last in pieces:
            waiting.append((reader.submit(read), first, last))
            if len(waiting) > workers:
                done, begin, end = waiting.popleft()
                yield done.result(), begin, end
        while waiting:
            done, begin, end = waiting.popleft()
            yield done.result(), begin, end


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
