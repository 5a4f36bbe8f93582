"""The encoder: ids become rows of their table, numbers become floats that are finite, lists keep their last values."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import DataError
from contract.schema import DenseSpec, IdSpec, Schema
from features.encode.encoder import MANY, Encoder, as_float64, encode_dense, refuse_by_policy
from features.encode.vocabulary import ALWAYS, Vocabularies

WORDS = pa.array(["a", "b", "c"])
TEXTS = st.lists(st.none() | st.sampled_from(["a", "b", "c", "d", "e", ""]), max_size=40)
NUMBERS = st.lists(st.none() | st.floats(-1e12, 1e12), min_size=1, max_size=40)


def id_spec(**changes: Any) -> IdSpec:
    return IdSpec.model_validate({"name": "w", "kind": "id", "side": "item", "rows": 4, "dtype": "string", **changes})


def encoder(values: pa.Array = WORDS, since: Any = None) -> Encoder:
    schema = Schema(features=(), tasks=())
    return Encoder(schema, Vocabularies({"w": values}, None if since is None else {"w": since}))


@given(TEXTS)
def test_a_known_value_gets_its_row_and_all_others_row_0(values: list[str | None]) -> None:
    rows = encoder().ids(id_spec(), pa.array(values, pa.string()))
    assert rows.tolist() == [{"a": 1, "b": 2, "c": 3}.get(value or "", 0) for value in values]


def test_a_long_column_is_encoded_as_its_pieces_are() -> None:
    draw = np.random.default_rng(0)
    values = pa.array([("a", "c", None, "x")[i] for i in draw.integers(0, 4, MANY + 100)])
    whole = encoder().ids(id_spec(), values)
    pieces = [encoder().ids(id_spec(), values.slice(begin, 1000)) for begin in range(0, len(values), 1000)]
    assert np.array_equal(whole, np.concatenate(pieces))


@given(TEXTS, st.integers(1, 5), st.booleans())
def test_null_and_unseen_values_take_the_rows_that_policies_reserve(
    values: list[str | None],
    shared: int,
    own: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    reserved = pa.concat_arrays([pa.nulls(own + shared, pa.string()), WORDS])
    spec = id_spec(null_row=own, unknown_rows=shared, rows=4 + own + shared)
    rows = encoder(reserved).ids(spec, pa.array(values, pa.string())).tolist()
    for value, row in zip(values, rows, strict=True):
        if value is None:
            assert row == (1 if own else 0)
        elif value in {"a", "b", "c"}:
            assert row == 1 + own + shared + "abc".index(value)
        else:
            assert 1 + own <= row < 1 + own + shared


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=40), st.integers(2, 1000))
def test_hashed_ids_lie_in_their_table_and_null_in_row_0(values: list[int | None], rows: int) -> None:
    spec = id_spec(encoding="hash", rows=rows, dtype="integer")
    found = encoder().ids(spec, pa.array(values, pa.int64())).tolist()
    assert all((row == 0) if value is None else (1 <= row < rows) for value, row in zip(values, found, strict=True))


def test_two_hashed_tables_deal_the_same_values_differently() -> None:
    values = pa.array(np.arange(50))
    first, second = (encoder().ids(id_spec(encoding="hash", rows=1000, table=name), values) for name in ("one", "two"))
    assert (first != second).any()


@given(st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "z"]), max_size=6), max_size=20), st.integers(1, 4))
def test_a_list_keeps_its_last_values_and_null_is_an_empty_list(lists: list[list[str] | None], most: int) -> None:
    found = encoder().lists(id_spec(kind="id_list", max_length=most), pa.array(lists, pa.list_(pa.string())))
    expected = [(values or [])[-most:] for values in lists]
    assert found.lengths.tolist() == [len(values) for values in expected]
    assert found.values.tolist() == [{"a": 1, "b": 2}.get(value, 0) for values in expected for value in values]


def test_a_column_that_is_no_list_is_refused_where_lists_are_taken() -> None:
    with pytest.raises(DataError, match="'w' takes lists, but the column is string"):
        encoder().lists(id_spec(kind="id_list", max_length=2), WORDS)


def test_as_of_a_day_later_values_are_unknown() -> None:
    since = np.array([ALWAYS, 5, 9], np.int32)
    known = encoder(since=since)
    assert known.as_of(9) is known
    assert known.as_of(5).ids(id_spec(), WORDS).tolist() == [1, 2, 0]
    assert known.as_of(4).ids(id_spec(), WORDS).tolist() == [1, 0, 0]


@given(NUMBERS, st.sampled_from(["standardise", "log1p", "piecewise_linear"]))
def test_encoded_numbers_are_finite_and_in_their_range(values: list[float | None], encoding: Any) -> None:
    spec = DenseSpec(name="x", side="item", encoding=encoding, edges=(-2.0, 0.0, 5.0), mean=1.0, scale=2.0, default=3.0)
    found = encoder().dense(spec, pa.array(values, pa.float64()))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if encoding == "piecewise_linear":
        missing = np.array([value is None for value in values])
        assert (found[missing] == -1.0).all()
        assert ((found[~missing] >= 0.0) & (found[~missing] <= spec.bins)).all()


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=30))
def test_a_greater_number_never_gets_a_lower_position(values: list[float]) -> None:
    spec = DenseSpec(name="x", side="item", encoding="piecewise_linear", edges=(-3.0, -1.0, 0.0, 0.5, 7.0))
    assert (np.diff(encode_dense(spec, np.sort(np.array(values)))) >= 0).all()


def test_a_fill_value_takes_the_place_of_null_before_encoding() -> None:
    spec = DenseSpec(name="x", side="item", encoding="standardise", mean=1.0, scale=2.0, fill=5.0, default=9.0)
    assert encoder().dense(spec, pa.array([None, 5.0])).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, None, False]), [1.0, np.nan, 0.0]),
        (pa.array([1, None], pa.int8()), [1.0, np.nan]),
        (pa.array([1_500, None], pa.timestamp("ms")), [1_500.0, np.nan]),
        (pa.nulls(1), [np.nan]),
    ],
)
def test_columns_of_any_number_or_time_become_floats(values: pa.Array, expected: list[float]) -> None:
    assert np.array_equal(as_float64(values, "x"), expected, equal_nan=True)


def test_texts_and_infinities_are_refused_as_numbers() -> None:
    with pytest.raises(DataError, match="'x' takes numbers, but the column is string"):
        as_float64(WORDS, "x")
    with pytest.raises(DataError, match="feature 'x' has an infinite value"):
        as_float64(pa.array([1.0, float("inf")]), "x")
    with pytest.raises(DataError, match="the weight of task 'click' has an infinite value"):
        as_float64(pa.array([1.0, float("inf")]), "click", "the weight of task")


def test_policies_refuse_nulls_and_nans_and_say_how_many() -> None:
    with pytest.raises(DataError, match="null in 2 of 3 rows"):
        refuse_by_policy(id_spec(refuse_null=True), pa.array(["a", None, None]))
    spec = DenseSpec(name="x", side="item", encoding="standardise", refuse_nan=True)
    with pytest.raises(DataError, match="NaN in 1 of 2 rows"):
        refuse_by_policy(spec, pa.array([1.0, float("nan")]))
    refuse_by_policy(spec, pa.array([1.0, None]))
