"""Properties of the wire: what a client says is what the server reads, and what it answers is what the client reads."""

import string
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contract.inputs import PartInputs
from features.online.online_table import TableRows
from features.point_in_time.ragged import Ragged
from serving.api.codec_rank import count_items, key_of, request_from
from serving.client.client_request import build_request
from serving.graph.batched_graph import joined
from serving.graph.user_blob import UserBlob
from serving.registry.traffic import falls_in
from serving.stubs.moerank.v1 import ranking_pb2

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=5)
USERS = st.none() | INTEGERS | TEXTS
VALUES = INTEGERS | TEXTS | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
ITEMS = st.lists(INTEGERS, max_size=6) | st.lists(TEXTS, min_size=1, max_size=6)


def sent(**request: Any) -> Any:
    message = build_request(**request)
    return request_from(ranking_pb2.RankRequest.FromString(message.SerializeToString()))


@given(USERS, ITEMS)
def test_ids_arrive_as_they_were_given(user: int | str | None, items: list[Any]) -> None:
    arrived = sent(user=user, items=items)
    assert (arrived.user, list(arrived.items)) == (user, items)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_values_of_the_context_arrive_with_their_types(context: dict[str, Any]) -> None:
    arrived = sent(user=1, items=[1], context=context).context
    assert {n: (type(v), v) for n, v in arrived.items()} == {n: (type(v), v) for n, v in context.items()}


@given(st.dictionaries(NAMES, st.lists(INTEGERS, max_size=4) | st.lists(TEXTS, min_size=1, max_size=4), max_size=3))
def test_lists_of_a_user_arrive_in_their_order(features: dict[str, list[Any]]) -> None:
    arrived = sent(user=1, items=[1], user_features=features).user_features
    assert {name: list(values) for name, values in arrived.items()} == features


@given(st.lists(st.tuples(INTEGERS, st.floats(width=32, allow_nan=False)), min_size=1, max_size=6))
def test_columns_of_items_arrive_row_by_row(rows: list[tuple[int, float]]) -> None:
    items, prices = map(list, zip(*rows, strict=True))
    arrived = sent(user=1, items=items, item_features={"price": prices, "id": items}).item_features
    assert (list(arrived["price"]), list(arrived["id"])) == (prices, items)


@given(ITEMS)
def test_items_are_counted_without_being_read(items: list[Any]) -> None:
    assert count_items(build_request(user=None, items=items).items) == len(items)


@given(INTEGERS)
def test_a_number_and_its_digits_are_one_key(user: int) -> None:
    number, text = (build_request(user=given_user, items=[1]).user for given_user in (user, str(user)))
    assert key_of(number) == key_of(text) == str(user)


@given(TEXTS, st.floats(0, 1), st.floats(0, 1))
def test_a_growing_share_keeps_its_keys(key: str, first: float, second: float) -> None:
    small, large = sorted((first, second))
    assert falls_in(large, "m", "canary", key) or not falls_in(small, "m", "canary", key)


@given(TEXTS)
def test_a_share_of_all_holds_every_key_and_one_of_nothing_none(key: str) -> None:
    assert falls_in(1.0, "m", "shadow", key)
    assert not falls_in(0.0, "m", "shadow", key)


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    st.lists(st.integers(0, 2**64 - 1), max_size=2),
    st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=3),
)
def test_a_users_blob_holds_all_of_its_features(
    ids: list[int], dense: list[float], keys: list[int], lists: list[list[int]]
) -> None:
    names = tuple(f"list_{place}" for place in range(len(lists)))
    found = TableRows(
        known=np.ones(1, np.bool_),
        ids=np.array([ids], np.int32),
        dense=np.array([dense], np.float32),
        key_hashes=np.array([keys], np.uint64),
        lists={n: Ragged(np.array(v, np.int32), np.array([0, len(v)])) for n, v in zip(names, lists, strict=True)},
    )
    layout = UserBlob(len(ids), len(dense), len(keys), names)
    back = layout.decode(layout.encode(found))
    assert (back.ids[0].tolist(), back.key_hashes[0].tolist()) == (ids, keys)
    assert back.dense.tobytes() == found.dense.tobytes()
    assert [back.lists[name].values.tolist() for name in names] == lists


def part(rows: list[tuple[int, list[int]]]) -> PartInputs:
    values = [value for _, each in rows for value in each]
    return PartInputs(
        ids=np.array([[number] for number, _ in rows], np.int64),
        list_values=np.array(values, np.int64),
        list_lengths=np.array([[len(each) for _, each in rows]], np.int64),
        dense=np.zeros((len(rows), 0), np.float32),
    )


ROWS = st.lists(st.tuples(st.integers(0, 99), st.lists(st.integers(0, 9), max_size=3)), min_size=1, max_size=4)


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_parts_joined_are_the_part_of_all_rows(parts: list[list[tuple[int, list[int]]]]) -> None:
    together, whole = joined([part(rows) for rows in parts]), part([row for rows in parts for row in rows])
    assert all(np.array_equal(getattr(together, n), getattr(whole, n)) for n in ("ids", "list_values", "list_lengths"))
