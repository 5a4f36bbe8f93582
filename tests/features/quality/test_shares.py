"""Shares of bins and values in the quality report are those of a plain count."""

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from features.quality.check_data import _bin_shares, _most_frequent, _value_shares

NUMBERS = st.lists(st.floats(-9, 9), max_size=30)
EDGES = st.lists(st.floats(-9, 9), min_size=1, max_size=5, unique=True).map(lambda edges: tuple(sorted(edges)))
VALUES = st.lists(st.integers(-40, 40), max_size=200) | st.lists(st.text("ab", max_size=5), max_size=200)


@given(NUMBERS, EDGES, st.integers(0, 5))
def test_a_value_on_an_edge_counts_above_it(numbers: list[float], edges: tuple[float, ...], nulls: int) -> None:
    bins = Counter(sum(edge <= number for edge in edges) for number in numbers)
    total = len(numbers) + nulls
    expected = [round(bins[place] / max(total, 1), 6) for place in range(len(edges) + 1)]
    shares = _bin_shares(np.sort(np.array(numbers)), edges, total)
    assert list(shares) == [*expected, round(nulls / max(total, 1), 6)]


def counts_of(values: list[int] | list[str]) -> pa.Table:
    kind = pa.string() if values and isinstance(values[0], str) else pa.int64()
    counted = pa.table({"value": pa.array(values, kind)}).group_by("value").aggregate([("value", "count")])
    return counted.rename_columns(["value", "value_count"])


@given(VALUES)
def test_the_most_frequent_values_come_first_and_equals_in_their_order(values: list[int] | list[str]) -> None:
    counted: Counter[int | str] = Counter(values)
    expected = sorted(counted, key=lambda value: (-counted[value], value))[:30]
    assert _most_frequent(counts_of(values))["value"].to_pylist() == expected


@given(VALUES, st.lists(st.sampled_from(["1", "-7", "a", "ab", "", "none of them"]), unique=True, max_size=4))
def test_shares_of_values_of_the_last_build_need_not_be_of_the_same_type(
    values: list[int] | list[str], asked: list[str]
) -> None:
    counted = Counter(str(value) for value in values)
    shares = _value_shares(counts_of(values), tuple(asked), max(len(values), 1))
    assert list(shares[:-1]) == [round(counted[text] / max(len(values), 1), 6) for text in asked]
