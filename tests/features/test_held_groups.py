"""Row groups that several windows share are decoded once, however many threads ask, and are let go of in the end."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.epoch_order import RowBlock
from features.held_groups import HeldGroups

WINDOWS = [[RowBlock(0, 0, 2), RowBlock(1, 0, 1)], [RowBlock(1, 1, 3), RowBlock(0, 2, 4)], [RowBlock(2, 0, 4)]]
SIZES = [4, 3, 4]


def rows(numbers: list[int]) -> list[list[int]]:
    return [[10 * number + row for row in range(SIZES[number])] for number in numbers]


def window(held: HeldGroups[list[int]], number: int) -> list[int]:
    return [row for group, block in held.window(number) for row in group[block.begin : block.end]]


def test_windows_hold_their_blocks_and_each_row_group_is_read_once() -> None:
    asked: list[int] = []

    def read(numbers: list[int]) -> list[list[int]]:
        asked.extend(numbers)
        return rows(numbers)

    held = HeldGroups(WINDOWS, read)
    windows = [window(held, number) for number in range(3)]
    assert windows == [[0, 1, 10], [11, 12, 2, 3], [20, 21, 22, 23]]
    assert asked == [0, 1, 2]
    assert window(HeldGroups(WINDOWS, rows), 1) == [11, 12, 2, 3]


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_waits_for_what_another_reads_and_gets_its_error(*, fails: bool) -> None:
    reading, go_on = threading.Event(), threading.Event()
    calls: list[list[int]] = []

    def read(numbers: list[int]) -> list[list[int]]:
        calls.append(numbers)
        reading.set()
        assert go_on.wait(10)
        if fails:
            raise OSError(str(numbers))
        return rows(numbers)

    held = HeldGroups(WINDOWS, read)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(window, held, 0)
        assert reading.wait(10)
        second = threads.submit(window, held, 1)
        go_on.set()
        if fails:
            for each in (first, second):
                with pytest.raises(OSError, match="0, 1"):
                    each.result(10)
        else:
            assert second.result(10) == [11, 12, 2, 3]
    assert calls == [[0, 1]]
