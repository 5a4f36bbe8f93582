"""Packed lists and slices of shared values are the lists that they stand for."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.point_in_time.ragged import Ragged, RaggedSlices

VALUES = pa.array(np.arange(40) * 7)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=30))
def test_compact_slices_hold_the_same_lists_and_no_other_values(rows: list[tuple[int, int]]) -> None:
    ends, lengths = np.array([end for end, _ in rows]), np.array([min(row) for row in rows], dtype=np.int32)
    slices = RaggedSlices(ends, lengths)
    kept, compact = slices.compact()
    lists = [list(range(end - length, end)) for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
    assert slices.gather(VALUES).to_pylist() == [[place * 7 for place in indices] or None for indices in lists]
    assert compact.gather(VALUES.take(pa.array(kept))).equals(slices.gather(VALUES))
    assert kept.tolist() == sorted({place for indices in lists for place in indices})


LISTS = st.lists(st.lists(st.integers(-9, 9), max_size=5), min_size=1, max_size=8)


def packed(lists: list[list[int]]) -> Ragged:
    values = np.array([value for each in lists for value in each], np.int32)
    return Ragged.packed(values, np.array([len(each) for each in lists]))


@given(LISTS, st.data())
def test_packed_lists_are_taken_split_and_joined_as_lists_are(lists: list[list[int]], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    whole, taken = packed(lists), packed(lists).take(np.array(rows, np.int64))
    assert [each.tolist() for each in whole.split()] == whole.to_arrow().to_pylist() == lists
    assert taken.to_arrow().to_pylist() == [lists[row] for row in rows]
    assert Ragged.joined([whole, taken]).to_arrow().to_pylist() == lists + [lists[row] for row in rows]
    assert Ragged.empty(2).to_arrow().to_pylist() == [[], []]
