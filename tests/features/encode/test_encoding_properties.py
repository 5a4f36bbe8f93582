"""Properties of vocabularies and encodings."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from contract.hashing import hash_array
from contract.schema import DenseSpec, IdSpec, Schema
from features.encode.encoder import Encoder, as_float64, encode_dense
from features.encode.vocabulary import Vocabularies

KNOWN = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20, unique=True)
NUMBERS = st.lists(st.none() | st.floats(-1e9, 1e9), min_size=1, max_size=30)
EDGES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=6, unique=True).map(lambda e: tuple(sorted(e)))
LISTS = st.lists(st.none() | st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=9)


def vocabulary(values: list[int]) -> Vocabularies:
    return Vocabularies({"thing": pa.array(values, pa.int64())})


def encoder(values: list[int], kind: str = "id", max_length: int = 0) -> tuple[Encoder, IdSpec]:
    spec = IdSpec.model_validate(
        {"name": "thing", "kind": kind, "side": "item", "rows": len(values) + 1, "max_length": max_length}
    )
    return Encoder(Schema(features=(spec,), tasks=()), vocabulary(values)), spec


@given(KNOWN)
def test_known_values_have_the_rows_of_their_order(values: list[int]) -> None:
    assert vocabulary(values).rows("thing", hash_array(pa.array(values))).tolist() == list(range(1, len(values) + 1))


@given(KNOWN, st.integers(-(2**63), 2**63 - 1))
def test_a_value_that_is_not_known_has_row_0(values: list[int], other: int) -> None:
    row = int(vocabulary(values).rows("thing", hash_array(pa.array([other], pa.int64())))[0])
    assert row == (values.index(other) + 1 if other in values else 0)


@given(KNOWN)
def test_a_vocabulary_with_another_order_has_another_digest(values: list[int]) -> None:
    turned = values[::-1]
    assert (vocabulary(values).sha256() == vocabulary(turned).sha256()) is (values == turned)


@given(KNOWN, st.lists(st.integers(-5, 5), min_size=1))
def test_rows_are_encoded_one_by_one(values: list[int], asked: list[int]) -> None:
    made, spec = encoder(values)
    together = made.ids(spec, pa.array(asked, pa.int64()))
    assert together.tolist() == [int(made.ids(spec, pa.array([each], pa.int64()))[0]) for each in asked]


@given(LISTS, st.integers(1, 4))
def test_a_list_keeps_its_last_values(lists: list[list[int] | None], most: int) -> None:
    made, spec = encoder(list(range(10)), "id_list", most)
    found = made.lists(spec, pa.array(lists, pa.list_(pa.int64())))
    expected = [[value + 1 for value in (each or [])[-most:]] for each in lists]
    assert found.lengths.tolist() == [len(each) for each in expected]
    assert found.values.tolist() == [row for each in expected for row in each]


@given(NUMBERS)
def test_null_is_the_only_nan(values: list[float | None]) -> None:
    found = as_float64(pa.array(values, pa.float64()), "number")
    assert np.isnan(found).tolist() == [value is None for value in values]


@given(NUMBERS, EDGES)
def test_a_position_between_edges_rises_with_the_value(values: list[float | None], edges: tuple[float, ...]) -> None:
    spec = DenseSpec(name="number", side="item", encoding="piecewise_linear", edges=edges)
    given_values = np.array([v for v in values if v is not None], np.float64)
    positions = encode_dense(spec, given_values)
    assert (np.diff(positions[np.argsort(given_values)]) >= 0).all()
    assert ((positions >= 0) & (positions <= len(edges) - 1)).all()


@given(NUMBERS, st.sampled_from(["piecewise_linear", "standardise", "log1p"]))
def test_any_number_and_null_are_encoded_finitely(values: list[float | None], encoding: str) -> None:
    spec = DenseSpec.model_validate({"name": "n", "side": "item", "encoding": encoding, "edges": (0.0, 1.0)})
    assert np.isfinite(encode_dense(spec, as_float64(pa.array(values, pa.float64()), "n"))).all()
