"""Read the next piece of something long in a thread while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(pieces: Iterator[tuple[Callable[[], T], int, int]]) -> Iterator[tuple[T, int, int]]:
    """What each function reads, with the two numbers that came with it; one more is being read meanwhile."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as reader:
        waiting: deque[tuple[Future[T], int, int]] = deque()
        for read, first, last in pieces:
            waiting.append((reader.submit(read), first, last))
            if len(waiting) > 1:
                done, begin, end = waiting.popleft()
                yield done.result(), begin, end
        while waiting:
            done, begin, end = waiting.popleft()
            yield done.result(), begin, end
