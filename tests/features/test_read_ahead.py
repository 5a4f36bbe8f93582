"""What is read or prepared while something else is used: in order, in threads, with its errors, not after its end."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from features.read_ahead import enough_decoding_threads, prepared_ahead, read_ahead
from tests.patience import wait_until


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


@pytest.mark.parametrize(("cores", "at_once"), [(2, 1), (4, 2), (16, 4)])
def test_pieces_come_in_order_however_many_are_read_at_once(
    cores: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.read_ahead.usable_cores", lambda: cores)
    begun: list[int] = []
    gate = threading.Semaphore(0)

    def reader_of(number: int) -> Callable[[], int]:
        def read() -> int:
            begun.append(number)
            assert gate.acquire(timeout=10)
            return number

        return read

    ahead = read_ahead(map(reader_of, range(12)))
    with ThreadPoolExecutor(1) as asking:
        first = asking.submit(next, ahead)
        wait_until(lambda: len(begun) == at_once)
        for _ in range(12):
            gate.release()
        assert first.result(10) == 0
    assert list(ahead) == list(range(1, 12))
    assert sorted(begun) == list(range(12))


@pytest.mark.parametrize(("before", "after"), [(1, 4), (6, 6)])
def test_arrow_decodes_in_no_fewer_threads_than_read(before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.read_ahead.usable_cores", lambda: 16)
    usual = pa.cpu_count()
    try:
        pa.set_cpu_count(before)
        enough_decoding_threads()
        assert pa.cpu_count() == after
    finally:
        pa.set_cpu_count(usual)
