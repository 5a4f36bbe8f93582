"""Windows of an epoch hold rows of all days, each row once, and few row groups are in memory at a time."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from contract.dataset import EncodedDataset, RowGroup
from contract.schema import IdSpec, Schema, TaskSpec
from features.batches import BatchReader
from features.epoch_order import Mixing, RowBlock, groups_mixed, in_order, rows_mixed
from tests.encoded_rows import write_dataset

SCHEMA = Schema(
    features=(IdSpec(name="item", kind="id", side="item", rows=1000),), tasks=(TaskSpec(name="like", kind="binary"),)
)
DAYS, DAY_ROWS, GROUP = 12, 32_768, 16_384
MIXING = Mixing(window=400, block=25, stretch=1600)


def rows_of_day(day: int) -> pa.Table:
    """Rows whose item is the day and whose user is their number."""
    number = np.arange(DAY_ROWS, dtype=np.uint64) + np.uint64(day * DAY_ROWS)
    item = np.full(DAY_ROWS, day)
    ones = np.ones(DAY_ROWS, np.float32)
    names = ["item", "label__like", "weight__like", "__user", "__item"]
    return pa.table([item.astype(np.int32), ones, ones, number, item.astype(np.uint64)], names)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of two row groups each, six windows in all."""
    path: Path = tmp_path_factory.mktemp("log") / "train"
    write_dataset(path, [rows_of_day(day) for day in range(DAYS)], SCHEMA, group_rows=GROUP)
    return path


def days_of(reader: BatchReader, epoch: int) -> NDArray[np.uint64]:
    return np.concatenate([batch.item for batch in reader.epoch(epoch)])


def test_any_stretch_of_a_window_holds_rows_of_all_days_near_their_share(log: Path) -> None:
    days = days_of(BatchReader(log, SCHEMA, 1024, seed=1), 0)
    for begin in range(0, len(days) - 65_536 + 1, 32_768):
        counts = np.bincount(days[begin : begin + 65_536].astype(np.int64), minlength=DAYS)
        assert counts.min() > 65_536 / DAYS / 4
        assert counts.max() < 65_536 / DAYS * 2


def test_each_row_group_is_decoded_once_and_resuming_decodes_no_more(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[RowGroup] = []
    read_groups = EncodedDataset.read_groups

    def counting(dataset: EncodedDataset, groups: list[RowGroup], *others: Any) -> Any:
        read.extend(groups)
        return read_groups(dataset, groups, *others)

    monkeypatch.setattr(EncodedDataset, "read_groups", counting)
    reader = BatchReader(log, SCHEMA, 1024, seed=1)
    whole = np.concatenate([batch.user for batch in reader.epoch(3)])
    assert len(read) == len(set(read)) == DAYS * DAY_ROWS // GROUP
    read.clear()
    rest = np.concatenate([batch.user for batch in reader.epoch(3, start=200 * 1024)])
    assert np.array_equal(rest, whole[200 * 1024 :])
    assert len(read) == len(set(read))
    assert np.array_equal(np.sort(whole), np.arange(DAYS * DAY_ROWS))


def log_of(days: int, groups: int) -> tuple[list[int], list[int]]:
    """Sizes of row groups of 100 rows, and their files, each file's one after the other."""
    return [100] * (days * groups), np.repeat(np.arange(days), groups).tolist()


def test_a_long_log_holds_the_row_groups_of_a_stretch_and_a_window() -> None:
    windows = rows_mixed(*log_of(60, 10), np.random.default_rng(0), MIXING)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number, window in enumerate(windows):
        for block in window:
            first.setdefault(block.group, number)
            last[block.group] = number
    held = [sum(first[g] <= number <= last[g] for g in first) for number in range(len(windows))]
    # A window's rows come from row groups that begin up to a stretch before its first row, or within it.
    assert max(held) * 100 <= MIXING.stretch + 2 * MIXING.window
    assert all(350 <= sum(block.rows for block in window) <= 425 for window in windows)
    days = [len({block.group // 10 for block in window}) for window in windows[1:-1]]
    assert min(days) >= 10


def test_whole_row_groups_of_each_file_are_spread_over_the_epoch() -> None:
    sizes, files = log_of(5, 8)
    order = [block.group for window in groups_mixed(sizes, files, np.random.default_rng(4), 1000) for block in window]
    assert sorted(order) == list(range(40))
    for begin in range(0, 40, 10):
        counts = Counter(files[group] for group in order[begin : begin + 10])
        assert min(counts[day] for day in range(5)) >= 1
        assert max(counts.values()) <= 3


def test_windows_are_of_nearly_equal_size_so_that_none_has_little_to_mix() -> None:
    sizes = [100] * 8
    windows = in_order(sizes, 500)
    assert [[block.group for block in window] for window in windows] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert in_order([], 500) == []
    assert in_order([3], 500) == [[RowBlock(0, 0, 3)]]


@pytest.mark.parametrize("sizes", [[1], [7, 1, 300], [100] * 30])
def test_every_row_is_in_one_block_in_an_order_that_changes(sizes: list[int]) -> None:
    orders = []
    for seed in (0, 1):
        windows = rows_mixed(sizes, [0] * len(sizes), np.random.default_rng(seed), MIXING)
        orders.append(list(itertools.chain(*windows)))
        rows = [(b.group, row) for b in orders[-1] for row in range(b.begin, b.end)]
        assert sorted(rows) == [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    assert len(sizes) == 1 or orders[0] != orders[1]
