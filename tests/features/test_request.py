"""A request encoded at serving is its training row, bit for bit; wrong requests are refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from features.batches import BatchReader
from features.build import build
from features.errors import RequestError
from features.inputs import Batch, Inputs, PartInputs
from features.request import Encoded, RankRequest, RequestEncoder
from features.schema import Schema
from tests.features.raw_world import LAST_DAY, quiet, raw_tables, recipe, write_raw


def row_of(encoded: Encoded) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in encoded.inputs.arrays().items()}


def test_logged_requests_equal_their_training_rows_bit_for_bit(tmp_path: Path) -> None:
    """Tables of a log that ends before the last day, against the rows that the whole log gives that day."""
    split = {"by": "expression", "valid": "day == 4", "test": f"day == {LAST_DAY}"}
    tables = raw_tables()
    for name, last in (("short", int(LAST_DAY)), ("whole", int(LAST_DAY) + 1)):
        (tmp_path / name).mkdir()
        events = tables["events"].filter(pc.less(tables["events"]["day"], last))
        write_raw(tmp_path / name, {**tables, "events": events})
        build(recipe(tmp_path / name, split=split), tmp_path / name / "features", quiet)
    encoder = RequestEncoder.open(tmp_path / "short" / "features")
    assert encoder.schema == Schema.load(tmp_path / "whole" / "features")
    (batch,) = BatchReader(tmp_path / "whole" / "features" / "test.parquet", encoder.schema, 1000).epoch()
    logged = tables["events"].filter(pc.equal(tables["events"]["day"], int(LAST_DAY))).to_pylist()
    expected = sorted(training_rows(batch))
    answered = sorted(
        canonical(encoder.encode(RankRequest(e["user"], [e["item"]], {"surface": e["surface"]}))) for e in logged
    )
    assert len(expected) == len(answered) > 50
    assert expected == answered


def canonical(encoded: Encoded) -> bytes:
    """All inputs of a request with one candidate, as bytes."""
    return b"|".join(np.ascontiguousarray(array).tobytes() for array in encoded.inputs.arrays().values())


def training_rows(batch: Batch) -> list[bytes]:
    """The same bytes for each row of a batch."""
    rows = []
    for row in range(batch.rows):
        parts = [one_row(part, row) for part in (batch.inputs.request, batch.inputs.candidate)]
        rows.append(canonical(Encoded(Inputs(*parts), unknown_user=False, unknown_items=np.zeros(1, dtype=np.bool_))))
    return rows


def one_row(part: PartInputs, row: int) -> PartInputs:
    owners = [np.repeat(np.arange(part.rows), lengths) for lengths in part.list_lengths]
    owner = np.concatenate([np.zeros(0, dtype=np.int64), *owners])
    picked = slice(row, row + 1)
    return PartInputs(
        part.ids[picked], part.list_values[owner == row], part.list_lengths[:, picked], part.dense[picked]
    )


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
