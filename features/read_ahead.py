"""Read or prepare the next piece of something long in a thread while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from contract.machine_cores import usable_cores

_CORES_FOR_TWO = 4

T = TypeVar("T")
S = TypeVar("S")


def read_ahead(pieces: Iterator[tuple[Callable[[], T], int, int]]) -> Iterator[tuple[T, int, int]]:
    """What each function reads, with the two numbers that came with it; the next ones are being read meanwhile.

    On machines of four cores and more two are read at a time, because one thread reads no faster than a card trains.

    What is to be read is decided in the caller's thread, beside the reading: in the reader's own, as `prepared_ahead`
    does it, an epoch of mixed rows took a twentieth to a tenth longer.
    """
    workers = 1 if usable_cores() < _CORES_FOR_TWO else 2
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


def prepared_ahead(items: Iterator[S], prepare: Callable[[S], T]) -> Iterator[T]:
    """What `prepare` makes of each item; a thread asks for the next item and prepares it meanwhile.

    Example:
        >>> list(prepared_ahead(iter([1, 2]), str))
        ['1', '2']
    """

    def following() -> list[T]:
        return [prepare(item) for item in islice(items, 1)]

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare-ahead") as worker:
        coming = worker.submit(following)
        while prepared := coming.result():
            coming = worker.submit(following)
            yield from prepared
