"""Rows of windows go straight to the batches that take them: in order or mixed, across windows, with their lists."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.gathered_rows import Dealing, GatheredRows, gather
from features.rows_in_memory import Rows
from tests.features.test_batches_of_parts import SCHEMA


def rows_numbered(begin: int, end: int) -> Rows:
    number = np.arange(begin, end)
    columns: dict[str, Any] = {name: number.astype(np.float32) for name in ("age", "label__like", "weight__like")}
    columns |= {"item": number.astype(np.int32), "__time": number, "__user": number.astype(np.uint64)}
    columns |= {"__item": number.astype(np.uint64)}
    columns["tags"] = pa.array([[n] * (n % 4) for n in number.tolist()], pa.list_(pa.int32()))
    return Rows.of(pa.table(columns), SCHEMA, with_time=True)


@settings(max_examples=100, deadline=None)
@given(
    windows=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=5),
    size=st.integers(1, 12),
    together=st.integers(1, 4),
    mixed=st.booleans(),
)
def test_batches_hold_the_rows_of_windows_in_their_order(
    windows: list[list[int]], size: int, together: int, *, mixed: bool
) -> None:
    total, generator = sum(map(sum, windows)), np.random.default_rng(0)
    sizes = [(min(size, total - begin),) for begin in range(0, total, size)]
    runs = [sizes[first : first + together] for first in range(0, len(sizes), together)]
    deal = Dealing(GatheredRows(run, SCHEMA, with_time=True) for run in runs)
    wanted, batches, end = list[int](), [], 0
    for window in windows:
        begin, rows = end, sum(window)
        pieces = []
        for piece in window:
            pieces.append(rows_numbered(end, end + piece))
            end += piece
        order = generator.permutation(rows) if mixed else np.arange(rows)
        wanted += (begin + order).tolist()
        destinations, complete = deal(np.arange(rows))
        gather(pieces, [to._replace(order=order[to.order]) if mixed else to for to in destinations])
        batches += [stretch.rows for gathered in complete for stretch in gathered.stretches()]

    assert [batch.rows for batch in batches] == [rows for (rows,) in sizes]
    assert [number for batch in batches for number in batch.inputs.candidate.ids[:, 0].tolist()] == wanted
    for batch in batches:
        number = batch.inputs.candidate.ids[:, 0]
        assert batch.time is not None
        for others in (
            batch.inputs.request.dense[:, 0],
            batch.labels[:, 0],
            batch.weights[:, 0],
            batch.user,
            batch.time,
        ):
            assert np.array_equal(others, number)
        assert batch.inputs.candidate.list_lengths[0].tolist() == (number % 4).tolist()
        assert batch.inputs.candidate.list_values.tolist() == np.repeat(number, number % 4).tolist()


def test_rows_that_lie_apart_are_taken_one_by_one() -> None:
    gathered = GatheredRows([(3,)], SCHEMA, with_time=True)
    destinations, complete = Dealing(iter([gathered]))(np.array([1, 2, 5]))
    gather([rows_numbered(0, 4), rows_numbered(4, 8)], destinations)
    assert complete == [gathered]
    (stretch,) = gathered.stretches()
    assert stretch.rows.user.tolist() == [1, 2, 5]
    assert stretch.rows.inputs.candidate.list_values.tolist() == [1, 2, 2, 5]


def test_nothing_is_asked_for_that_no_row_goes_to() -> None:
    deal = Dealing(iter(()))
    assert deal(np.zeros(0, np.int64)) == ([], [])
    with pytest.raises(StopIteration):
        deal(np.zeros(1, np.int64))
