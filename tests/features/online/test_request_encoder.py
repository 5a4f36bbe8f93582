"""A request encoded at serving is its training row, bit for bit; wrong requests are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import RequestError
from contract.inputs import Inputs, PartInputs
from contract.schema import DenseSpec, IdSpec, Schema
from features.batches import BatchReader
from features.build import build
from features.encode.encoder import Encoder
from features.encode.vocabulary import Vocabularies
from features.online import request_columns
from features.online.request_encoder import EncodedRequest, RankRequest, RequestEncoder
from tests.features.raw_world import LAST_DAY, quiet, raw_tables, recipe, write_raw


def row_of(encoded: EncodedRequest) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in encoded.inputs.arrays().items()}


def test_ten_thousand_logged_requests_equal_their_training_rows_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of a log that ends before the last day, against the rows that the whole log gives that day."""
    split = {"by": "expression", "valid": "day == 4", "test": f"day == {LAST_DAY}"}
    tables = raw_tables(rows=62_000)
    for name, last in (("short", int(LAST_DAY)), ("whole", int(LAST_DAY) + 1)):
        (tmp_path / name).mkdir()
        events = tables["events"].filter(pc.less(tables["events"]["day"], last))
        write_raw(tmp_path / name, {**tables, "events": events})
        crosses = [{"name": "maker_x_surface", "of": ["maker", "surface"]}]
        build(recipe(tmp_path / name, split=split, crosses=crosses), tmp_path / name / "features", quiet)
    encoders = [RequestEncoder.open(tmp_path / "short" / "features")]
    monkeypatch.setattr(request_columns, "kernels", lambda: None)
    encoders.append(RequestEncoder.open(tmp_path / "short" / "features"))
    encoder = encoders[0]
    assert encoder.schema == Schema.load(tmp_path / "whole" / "features")
    (batch,) = BatchReader(tmp_path / "whole" / "features" / "test", encoder.schema, 100_000).epoch()
    logged = tables["events"].filter(pc.equal(tables["events"]["day"], int(LAST_DAY)))
    groups = logged.group_by(["user", "surface"]).aggregate([("item", "list")]).to_pylist()
    requests = [RankRequest(g["user"], g["item_list"], {"surface": g["surface"]}) for g in groups]
    expected = flat_rows(batch.inputs)
    assert len(expected) > 10_000
    for each in encoders:
        answered = np.concatenate([flat_rows(each.encode(request).inputs) for request in requests])
        assert np.array_equal(in_order(expected), in_order(answered))


def flat_rows(inputs: Inputs) -> NDArray[np.int64]:
    """All inputs of each row side by side as whole numbers [N, width], a single request repeated for its candidates."""
    request, candidate = flat_part(inputs.request), flat_part(inputs.candidate)
    return np.concatenate([np.broadcast_to(request, (len(candidate), request.shape[1])), candidate], axis=1)


def flat_part(part: PartInputs) -> NDArray[np.int64]:
    width = 10
    padded = np.full((len(part.list_lengths), part.rows, width), -1, dtype=np.int64)
    padded[np.arange(width) < part.list_lengths[:, :, None]] = part.list_values
    dense = np.ascontiguousarray(part.dense).view(np.int32)
    return np.concatenate([part.ids, dense, part.list_lengths.T, *padded], axis=1)


def in_order(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort(rows.T)]


def test_unknown_user_and_items_are_said_and_answered_with_the_empty_history(built: Path) -> None:
    encoded = RequestEncoder.open(built).encode(RankRequest("nobody", [1, 999_999], {"surface": "home"}))
    assert encoded.unknown_user
    assert encoded.unknown_items.tolist() == [False, True]
    assert np.isfinite(encoded.inputs.candidate.dense).all()
    assert encoded.inputs.request.ids[0, 0] == 0


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (RankRequest("u1", []), "items", "at least one"),
        (RankRequest(5, [1]), "user", "string"),
        (RankRequest("u1", ["1"]), "items", "integer"),
        (RankRequest("u1", [2**70]), "items", "64-bit"),
        (RankRequest("u1", [1], {"planet": "mars"}), "context.planet", "surface"),
        (RankRequest("u1", [1], user_features={"age": float("nan")}), "user_features.age", "finite"),
        (RankRequest("u1", [1], user_features={"age": "old"}), "user_features.age", "number"),
        (RankRequest("u1", [1, 2], item_features={"tags": [["t1"]]}), "item_features.tags", "1 values for 2"),
        (RankRequest("u1", [1], item_features={"tags": ["t1"]}), "item_features.tags", "list"),
    ],
)
def test_wrong_requests_are_refused_by_name(built: Path, request_: RankRequest, field: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        RequestEncoder.open(built).encode(request_)
    assert caught.value.field == field


def test_overrides_replace_what_the_tables_hold(built: Path) -> None:
    encoder = RequestEncoder.open(built)
    plain = encoder.encode(RankRequest("u1", [1, 2]))
    own = encoder.encode(
        RankRequest("u1", [1, 2], user_features={"age": 40.0}, item_features={"tags": [[], ["t0", "t1"]]})
    )
    assert row_of(own)["candidate_list_lengths"].tolist() == [[0, 2]]
    assert not np.array_equal(row_of(plain)["request_dense"], row_of(own)["request_dense"])


def test_pair_features_follow_the_context(built: Path) -> None:
    encoder = RequestEncoder.open(built)
    seen = [row_of(encoder.encode(RankRequest("u1", [3], {"surface": s})))["request_dense"] for s in ("home", "search")]
    assert not np.array_equal(*seen)


USERS = st.sampled_from([f"u{number}" for number in range(27)])
ITEMS = st.lists(st.integers(0, 60), min_size=1, max_size=8)
SURFACES = st.sampled_from(["home", "search", "elsewhere", None])


@settings(deadline=None)
@given(USERS, ITEMS, SURFACES, st.data())
def test_a_request_is_its_candidates_asked_one_by_one_in_any_order(
    built: Path, user: str, items: list[int], surface: str | None, data: st.DataObject
) -> None:
    encoder = RequestEncoder.open(built)
    context = {} if surface is None else {"surface": surface}
    whole = flat_rows(encoder.encode(RankRequest(user, items, context)).inputs)
    order = data.draw(st.permutations(range(len(items))))
    shuffled = flat_rows(encoder.encode(RankRequest(user, [items[i] for i in order], context)).inputs)
    alone = [flat_rows(encoder.encode(RankRequest(user, [item], context)).inputs) for item in items]
    assert np.array_equal(whole, np.concatenate(alone))
    assert np.array_equal(shuffled, whole[list(order)])


@settings(deadline=None)
@given(USERS, ITEMS, st.none() | st.floats(0, 120), st.data())
def test_values_that_a_request_brings_are_encoded_as_a_training_columns_are(
    built: Path, user: str, items: list[int], age: float | None, data: st.DataObject
) -> None:
    """The round trip: what comes with a request goes through the encoder that training rows went through."""
    encoder = RequestEncoder.open(built)
    tags = data.draw(st.lists(st.lists(st.sampled_from(["t0", "t1", "t2", "new"]), max_size=4),
                              min_size=len(items), max_size=len(items)))  # fmt: skip
    request = RankRequest(user, items, user_features={"age": age}, item_features={"tags": tags})
    inputs = encoder.encode(request).inputs
    schema = encoder.schema
    specs = {spec.name: spec for spec in schema.features}
    training = Encoder(schema, Vocabularies.load(built, schema.vocabulary_tables(), schema.vocabulary_sha256))
    column = [spec.name for spec in schema.request.dense].index("age")
    age_spec, tag_spec = specs["age"], specs["tags"]
    assert isinstance(age_spec, DenseSpec)
    assert isinstance(tag_spec, IdSpec)
    assert inputs.request.dense[0, column] == training.dense(age_spec, pa.array([age], pa.float64()))[0]
    lists = training.lists(tag_spec, pa.array(tags, pa.list_(pa.string())))
    assert inputs.candidate.list_values.tolist() == lists.values.tolist()
    assert inputs.candidate.list_lengths[0].tolist() == lists.lengths.tolist()
