"""Hashes are stable over types, versions and chunks."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from contract.hashing import NULL_HASH, combine, hash_array, hash_integers, hash_text


def test_known_values_never_change() -> None:
    assert hash_array(pa.array([0, 1, -1])).tolist() == [
        16294208416658607535,
        10451216379200822465,
        16490336266968443936,
    ]
    assert hash_array(pa.array(["", "a", "moerank rank"])).tolist() == [
        12035550249420947055,
        3457773273792876208,
        20638127354606524,
    ]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.int64(), pa.float64()])
def test_integers_of_any_width_hash_alike(kind: pa.DataType) -> None:
    assert hash_array(pa.array([1, 2, 100], kind)).tolist() == hash_array(pa.array([1, 2, 100])).tolist()


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=20))
def test_a_text_hashes_the_same_alone_and_among_others(texts: list[str | None]) -> None:
    together = hash_array(pa.array(texts, pa.string()))
    alone = [hash_array(pa.array([text], pa.string()))[0] for text in texts]
    assert together.tolist() == alone
    assert all((h == NULL_HASH) == (t is None) for h, t in zip(together, texts, strict=True))


@given(st.lists(st.text(max_size=30), min_size=2, max_size=30, unique=True))
def test_different_texts_hash_differently(texts: list[str]) -> None:
    assert len(set(hash_array(pa.array(texts, pa.string())).tolist())) == len(texts)


def test_slices_hash_like_their_rows() -> None:
    texts = pa.array(["one", "two", None, "a longer text than one word"])
    assert hash_array(texts.slice(1)).tolist() == hash_array(texts).tolist()[1:]


def test_a_tuple_with_a_null_part_is_null_and_order_matters() -> None:
    a, b = hash_array(pa.array([1, None])), hash_array(pa.array([2, 2]))
    assert combine([a, b])[1] == NULL_HASH
    assert combine([a, b])[0] != combine([b, a])[0]
    assert np.array_equal(combine([a]), a)


def test_types_that_are_no_ids_are_refused() -> None:
    with pytest.raises(DataError, match="cannot be an id"):
        hash_array(pa.array([{"a": 1}]))


def test_single_values_hash_as_columns_do() -> None:
    texts = ["", "a", "12345678", "123456789", "\0", "\0\0", "gruesse \u00fc\u4e2d" * 7]
    assert [hash_text(text) for text in texts] == hash_array(pa.array(texts)).tolist()
    whole = np.array([0, -1, 2**63 - 1, -(2**63), 7], dtype=np.int64)
    assert hash_integers(whole).tolist() == hash_array(pa.array(whole)).tolist()
