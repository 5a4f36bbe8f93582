"""Slices of shared values are the lists that they stand for, also among fewer values."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.point_in_time.ragged import RaggedSlices

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
