"""Lists of how long before a row its events happened: compared with a loop over the raw events."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.columns import TIME, USER_HASH
from contract.hashing import hash_array
from contract.schema import Schema
from features.build import build
from features.online.request_encoder import RankRequest, RequestEncoder
from features.point_in_time.elapsed import LONGEST
from tests.features.raw_world import DAYS, START, quiet, raw_tables, recipe, write_raw

HISTORY = {
    "name": "last", "of": "item", "by": "user", "last": 4, "where": "liked == 1", "shares": "item",
    "columns": {"last_from": "surface"}, "elapsed": "last_elapsed",
}  # fmt: skip
LISTS = ("last", "last_from", "last_elapsed")
Events = list[tuple[int, int]]


def power(gap_ms: int) -> int:
    seconds, exponent = gap_ms // 1000, 0
    while seconds >= 2 ** (exponent + 1):
        exponent += 1
    return exponent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elapsed")
    write_raw(folder, raw_tables())
    features = [{"name": "user"}, {"name": "item"}, {"name": "surface"}]
    build(recipe(folder, features=features, aggregates=[], histories=[HISTORY]), folder / "features", quiet)
    return folder / "features"


@pytest.fixture(scope="module")
def liked() -> Events:
    """The user's hash and the moment of each event that the history holds."""
    events = raw_tables()["events"]
    hashes = hash_array(events["user"].combine_chunks()).tolist()
    moments = events["at"].combine_chunks().cast("int64").to_pylist()
    return [(u, at) for u, at, like in zip(hashes, moments, events["liked"].to_pylist(), strict=True) if like]


def expected(liked: Events, user: int, moment: int) -> list[int]:
    before = sorted(at for who, at in liked if who == user and at < moment)[-4:]
    return [power(moment - at) for at in before]


def test_each_row_says_how_long_before_it_each_event_happened(built: Path, liked: Events) -> None:
    train = pq.read_table(built / "train")
    rows = zip(
        train[USER_HASH].to_pylist(), train[TIME].to_pylist(), *(train[n].to_pylist() for n in LISTS), strict=True
    )
    seen = 0
    for user, moment, items, surfaces, elapsed in rows:
        powers = expected(liked, user, moment)
        assert [row - 1 for row in elapsed] == powers
        assert len(items) == len(surfaces) == len(elapsed)
        seen += len(powers)
    assert seen > 500


def test_its_values_are_all_known_beforehand_and_have_an_embedding_of_their_own(built: Path) -> None:
    spec = next(spec for spec in Schema.load(built).features if spec.name == "last_elapsed")
    assert (spec.kind, spec.rows, spec.max_length) == ("id_list", LONGEST + 2, 4)  # type: ignore[union-attr]


def test_a_request_gets_it_as_of_the_end_of_the_last_day_or_brings_its_own(built: Path, liked: Events) -> None:
    encoder = RequestEncoder.open(built)
    place = [spec.name for spec in encoder.schema.request.lists].index("last_elapsed")

    def elapsed(request: RankRequest) -> list[int]:
        part = encoder.encode(request).inputs.request
        ends = np.cumsum(part.list_lengths.sum(axis=1))
        return [int(row) - 1 for row in np.split(part.list_values, ends[:-1])[place]]

    midnight = int(START.timestamp() * 1000) + DAYS * 86_400_000
    user = next(name for name in raw_tables()["events"]["user"].to_pylist() if name)
    own = int(hash_array(raw_tables()["events"]["user"].slice(0, 1).combine_chunks())[0])
    assert elapsed(RankRequest(user, [1])) == expected(liked, own, midnight) != []
    given = {"last": [3, 4], "last_from": ["home", "home"], "last_elapsed": [11, 0]}
    assert elapsed(RankRequest(user, [1], user_features=given)) == [11, 0]
