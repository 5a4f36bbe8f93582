"""What is prepared while something else is used: in order, in a thread, with its errors, and not after its end."""

import threading
from collections.abc import Iterator

import pytest

from features.read_ahead import prepared_ahead


def test_items_come_in_order_and_the_next_is_prepared_meanwhile() -> None:
    prepared: list[int] = []
    second = threading.Event()

    def prepare(item: int) -> int:
        prepared.append(item)
        if item == 1:
            second.set()
        assert threading.current_thread() is not threading.main_thread()
        return 10 * item

    ahead = prepared_ahead(iter(range(4)), prepare)
    assert next(ahead) == 0
    assert second.wait(10)
    assert list(ahead) == [10, 20, 30]
    assert prepared == [0, 1, 2, 3]


@pytest.mark.parametrize("where", ["read", "prepare"])
def test_an_error_reaches_whoever_asks(where: str) -> None:
    def items() -> Iterator[int]:
        yield 0
        if where == "read":
            raise OSError(where)
        yield 1

    def prepare(item: int) -> int:
        if item:
            raise OSError(where)
        return item

    ahead = prepared_ahead(items(), prepare)
    assert next(ahead) == 0
    with pytest.raises(OSError, match=where):
        next(ahead)


def test_one_that_is_left_ends_its_thread() -> None:
    ahead = prepared_ahead(iter(range(100)), str)
    assert next(ahead) == "0"
    assert isinstance(ahead, Iterator)
    ahead.close()  # type: ignore[attr-defined] # a generator's
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare-ahead")]
