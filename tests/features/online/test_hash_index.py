"""Online tables find every key, say what is unknown, and hold what training rows would."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from contract.hashing import combine, hash_integers, mix
from features.online.hash_index import HashIndex, JointHashIndex
from features.online.online_table import OnlineTable


@given(st.sets(st.integers(min_value=1, max_value=2**64 - 1), max_size=300), st.integers(0, 2**64 - 1))
def test_every_key_is_found_and_no_other(keys: set[int], other: int) -> None:
    hashes = np.array(sorted(keys), dtype=np.uint64)
    index = HashIndex.build(hashes)
    rows, known = index.find(hashes, len(hashes))
    assert known.all()
    assert rows.tolist() == list(range(len(hashes)))
    row, is_known = index.find(np.array([other], dtype=np.uint64), len(hashes))
    assert bool(is_known[0]) == (other in keys)
    assert (row[0] == len(hashes)) == (other not in keys)


@pytest.mark.parametrize("step", [1, 2**20, 2**44])
def test_keys_that_crowd_one_bucket_are_found(step: int) -> None:
    hashes = (np.arange(1, 200, dtype=np.uint64)) * np.uint64(step)
    rows, known = HashIndex.build(hashes).find(hashes, 199)
    assert known.all()
    assert rows.tolist() == list(range(199))
    assert not HashIndex.build(hashes).find(hashes + np.uint64(1) * np.uint64(step) * np.uint64(500), 199)[1].any()


@given(st.lists(st.sets(st.integers(1, 2**64 - 1), max_size=60), min_size=1, max_size=4), st.integers(0, 2**20))
def test_indexes_asked_together_or_for_one_key_answer_as_each_alone(keys: list[set[int]], seed: int) -> None:
    indexes = [HashIndex.build(np.array(sorted(some), dtype=np.uint64)) for some in keys]
    unknown = np.array([len(some) for some in keys])
    everything = np.array(sorted({0, seed, *(key for some in keys for key in some)}), dtype=np.uint64)
    wanted = np.stack([np.random.default_rng(seed).permutation(everything) for _ in keys])
    rows, known = JointHashIndex(indexes).find(wanted, unknown)
    for table, some in enumerate(keys):
        places = {key: row for row, key in enumerate(sorted(some))}
        assert rows[table].tolist() == [places.get(key, len(some)) for key in wanted[table].tolist()]
        assert known[table].tolist() == [key in places for key in wanted[table].tolist()]
    one_row, one_known = JointHashIndex(indexes).find(wanted[:, :1], unknown)
    assert one_row.tolist() == rows[:, :1].tolist()
    assert one_known.tolist() == known[:, :1].tolist()


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=2, max_size=9))
def test_one_hash_is_made_as_many_are(pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array(side, dtype=np.uint64) for side in zip(*pairs, strict=True))
    whole = hash_integers(left.view(np.int64))
    together = combine([left, right])
    for place in range(len(pairs)):
        one = slice(place, place + 1)
        assert hash_integers(left[one].view(np.int64)) == whole[one]
        assert combine([left[one], right[one]]) == together[one]


def test_a_table_answers_the_same_after_it_was_saved(tmp_path: Path) -> None:
    keys = mix(np.arange(1000, dtype=np.uint64))
    nothing = np.zeros((1001, 0))
    dense = np.arange(2002, dtype=np.float32).reshape(1001, 2)
    table = OnlineTable(keys, nothing.astype(np.int32), dense, nothing.astype(np.uint64), {}, (), ("a", "b"))
    table.save(tmp_path / "t")
    opened = OnlineTable.open(tmp_path / "t")
    wanted = np.append(keys[::7], np.array([0, 5], dtype=np.uint64))
    for one in (table, opened):
        rows, known = one.find(wanted)
        assert known.tolist() == [True] * (len(wanted) - 2) + [False] * 2
        assert rows[-2:].tolist() == [1000, 1000]
        assert np.array_equal(one.dense[rows[:-2]], dense[::7][: len(wanted) - 2])


def test_a_missing_or_damaged_array_is_named(tmp_path: Path) -> None:
    keys = mix(np.arange(10, dtype=np.uint64))
    nothing = np.zeros((11, 0))
    empty = OnlineTable(keys, nothing.astype(np.int32), nothing.astype(np.float32), nothing.astype(np.uint64))
    empty.save(tmp_path / "t")
    (tmp_path / "t" / "dense.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"dense\.npy is missing or damaged"):
        OnlineTable.open(tmp_path / "t")
    (tmp_path / "t" / "slot_rows.npy").unlink()
    (tmp_path / "t" / "dense.npy").unlink()
    with pytest.raises(DataError, match="rebuild the features"):
        OnlineTable.open(tmp_path / "t")
