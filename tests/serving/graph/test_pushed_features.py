"""Features pushed between two versions: merged field by field, raw, of users, items and pairs, and bounded in age."""

import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.errors import DataError, RequestError
from contract.hashing import combine, hash_integers
from contract.schema import DenseSpec, Schema
from features.online.online_table import OnlineTable, OnlineTables
from features.online.request_encoder import RankRequest, RequestEncoder
from serving.client.blocking_client import RankingClient
from serving.graph.feature_writer import FeatureWriter
from serving.graph.pushed_features import COMPACT_BYTES, PushedReader, entity_key, newest, pair_key, pushed_message
from serving.graph.users import UserStore
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.stubs.moerank.v1 import ranking_pb2
from tests.faults.conftest import LONG
from tests.patience import PATIENCE, wait_until
from tests.serving.redis_server import Redis
from tests.tiny_bundle import make_schema, online_tables, publish_tiny, vocabularies

ALL: tuple[Literal["user", "item", "pair"], ...] = ("user", "item", "pair")


@pytest.fixture
def bundle(store: Path) -> Path:
    return store / "tiny" / "1"


def arrays(encoder: RequestEncoder, request: RankRequest, reader: PushedReader | None = None) -> dict[str, Any]:
    return encoder.encode(request, pushed=reader).inputs.arrays()


def same(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left)


def test_what_is_pushed_is_encoded_as_if_the_request_had_said_it(bundle: Path, users: UserStore) -> None:
    encoder, reader = RequestEncoder.open(bundle), PushedReader(users, ALL)
    writer = FeatureWriter(bundle, users)
    writer.put_users({3: {"activity": 0.77, "recent": [101, 105]}})
    writer.put_items({101: {"price": 0.5}, 103: {"price": 0.25}})
    told = RankRequest(
        3,
        [101, 102, 103],
        user_features={"activity": 0.77, "recent": [101, 105]},
        item_features={"price": [0.5, 0.2, 0.25]},
    )
    plain = RankRequest(3, [101, 102, 103])
    price = {spec.name: i for i, spec in enumerate(encoder.schema.candidate.dense)}["price"]
    expected, found = arrays(encoder, told), arrays(encoder, plain, reader)
    expected["candidate_dense"][1, price] = arrays(encoder, plain)["candidate_dense"][1, price]
    assert same(found, expected)
    encoded = encoder.encode(plain, pushed=reader)
    assert {name: rows.tolist() for name, rows in encoded.pushed.items()} == {
        "activity": [0],
        "recent": [0],
        "price": [0, 2],
    }
    # What the request says itself wins.
    own = RankRequest(3, [101, 102, 103], user_features={"activity": 0.1})
    encoded = encoder.encode(own, pushed=reader)
    assert ("activity" in encoded.given, "activity" in encoded.pushed) == (True, False)


def test_fields_are_merged_and_the_newest_wins(bundle: Path, users: UserStore, redis_server: Redis) -> None:
    writer = FeatureWriter(bundle, users)
    writer.put_users({3: {"activity": 0.7}}, at_ms=2000)
    writer.put_users({3: {"recent": [101]}}, at_ms=1000)
    writer.put_users({3: {"activity": 0.1}}, at_ms=1500)
    features = newest(redis_server.client().get(entity_key("user", 3)))
    assert features["activity"].value.number == 0.7
    assert list(features) == ["activity", "recent"]


def test_two_writers_at_once_lose_nothing_also_while_values_are_compacted(bundle: Path, redis_server: Redis) -> None:
    rounds = 20_000 if LONG else 300

    def write(name: str, values: list[Any]) -> None:
        own = UserStore(redis_server.url, seconds=PATIENCE)
        writer = FeatureWriter(bundle, own)
        for moment, value in enumerate(values):
            writer.put_users({3: {name: value}}, at_ms=moment)
        own.close()

    threads = [
        threading.Thread(target=write, args=("activity", [number / rounds for number in range(rounds)])),
        threading.Thread(target=write, args=("recent", [[100 + number % 20] for number in range(rounds)])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = redis_server.client().get(entity_key("user", 3))
    features = newest(content)
    assert features["activity"].value.number == (rounds - 1) / rounds
    assert [each.integer for each in features["recent"].value.values.values] == [100 + (rounds - 1) % 20]
    assert len(content) < 2 * COMPACT_BYTES


def test_control_a_writer_that_reads_and_sets_loses_what_came_between(redis_server: Redis) -> None:
    client, key = redis_server.client(), entity_key("user", 3)
    seen = client.get(key) or b""
    client.append(key, pushed_message({"activity": ranking_pb2.Value(number=1.0)}, 1))
    client.set(key, seen + pushed_message({"recent": ranking_pb2.Value(number=2.0)}, 1))
    assert list(newest(client.get(key))) == ["recent"]


def test_what_was_pushed_survives_a_retraining_with_other_fitted_numbers(
    store: Path, tmp_path: Path, users: UserStore
) -> None:
    FeatureWriter(store / "tiny" / "1", users).put_users({77: {"activity": 3.0}})
    schema = make_schema()
    wider = [s.model_copy(update={"scale": 2.0}) if s.name == "activity" else s for s in schema.features]
    other = tmp_path / "other"
    other.mkdir()
    schema.model_copy(update={"features": tuple(wider)}).save(other)
    vocabularies().save(other)
    online_tables().save(other / "online")
    assert Schema.load(other).fingerprint() != schema.fingerprint()
    encoded = RequestEncoder.open(other).encode(RankRequest(77, [101]), pushed=PushedReader(users, ALL))
    assert not encoded.unknown_user
    (place,) = (i for i, spec in enumerate(schema.request.dense) if spec.name == "activity")
    assert encoded.inputs.request.dense[0, place] == 1.5


def test_old_values_are_not_used_and_counted(bundle: Path, users: UserStore) -> None:
    now = int(time.time() * 1000)
    writer = FeatureWriter(bundle, users)
    writer.put_users({3: {"activity": 0.7}}, at_ms=now - 3_600_000)
    writer.put_users({4: {"activity": 0.7}}, at_ms=now - 1000)
    encoder, reader = RequestEncoder.open(bundle), PushedReader(users, ALL, max_age_seconds=60)
    old, young = (encoder.encode(RankRequest(user, [101]), pushed=reader) for user in (3, 4))
    assert (list(old.pushed), list(old.stale)) == ([], ["activity"])
    assert (list(young.pushed), list(young.stale)) == (["activity"], [])
    assert reader.counts.outcomes == {"stale": 1, "used": 1}
    assert 1 <= reader.counts.age_seconds < 60


def test_values_that_do_not_fit_the_model_are_left_out(bundle: Path, users: UserStore, redis_server: Redis) -> None:
    client = redis_server.client()
    client.append(entity_key("user", 3), pushed_message({"activity": ranking_pb2.Value(text="high")}, 1))
    client.append(entity_key("user", 3), pushed_message({"shoe_size": ranking_pb2.Value(number=43)}, 1))
    client.set(entity_key("user", 4), b"\xff\xff")
    encoder, reader = RequestEncoder.open(bundle), PushedReader(users, ALL)
    for user in (3, 4):
        request = RankRequest(user, [101])
        assert same(arrays(encoder, request, reader), arrays(encoder, request))
    assert reader.counts.outcomes["refused"] == reader.counts.outcomes["damaged"] == 1


def test_wrong_features_are_refused_before_anything_is_written(
    bundle: Path, users: UserStore, redis_server: Redis
) -> None:
    writer = FeatureWriter(bundle, users)
    with pytest.raises(RequestError, match="no user feature 'price'"):
        writer.put_users({1: {"activity": 1.0}, 2: {"price": 3.0}})
    with pytest.raises(DataError, match="no feature hangs on user_id,tab"):
        writer.put_pairs(("user_id", "tab"), {(1, "home"): {"rate": 1.0}})
    assert redis_server.client().keys() == []


def test_pairs_can_be_pushed(tmp_path: Path, users: UserStore) -> None:
    keys = ("user_id", "item_id")
    schema = make_schema()
    rate = DenseSpec(name="rate", side="pair", keys=keys, encoding="standardise")
    schema = schema.model_copy(update={"features": (*schema.features, rate)})
    tables = online_tables()
    empty = OnlineTable(
        keys=np.zeros(0, np.uint64),
        ids=np.zeros((1, 0), np.int32),
        dense=np.zeros((1, 1), np.float32),
        key_hashes=np.zeros((1, 0), np.uint64),
        dense_names=("rate",),
    )
    schema.save(tmp_path)
    vocabularies().save(tmp_path)
    OnlineTables(tables.user, tables.item, {keys: empty}).save(tmp_path / "online")
    FeatureWriter(tmp_path, users).put_pairs(keys, {(3, 101): {"rate": 0.75}})
    found = RequestEncoder.open(tmp_path).encode(RankRequest(3, [100, 101]), pushed=PushedReader(users, ALL))
    assert found.inputs.candidate.dense[:, -1].tolist() == [0.0, 0.75]
    # The vector of the docs, for writers in other languages.
    words = [hash_integers(np.array([value])) for value in (3, 101)]
    assert pair_key(keys, int(combine(words)[0])).decode().startswith("moerank:pair:user_id,item_id:")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_small_program_in_another_language_can_push(bundle: Path, users: UserStore, redis_server: Redis) -> None:
    node = shutil.which("node")
    assert node is not None
    program = Path(__file__).parent / "push.js"
    at_ms = str(int(time.time() * 1000))
    words = [node, str(program), str(redis_server.port), "3", "activity", "0.625", at_ms]
    subprocess.run(words, check=True, timeout=PATIENCE)
    reader = PushedReader(users, ALL, max_age_seconds=60)
    told = RankRequest(3, [101], user_features={"activity": 0.625})
    encoder = RequestEncoder.open(bundle)
    assert same(arrays(encoder, RankRequest(3, [101]), reader), arrays(encoder, told))


def test_debug_names_where_values_came_from_and_metrics_their_age(store: Path, redis_server: Redis) -> None:
    settings = ServerSettings(
        store=store, port=0, user_store=redis_server.url, user_store_seconds=10, pushed=ALL, poll_seconds=0.05
    )
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:
        FeatureWriter(store / "tiny" / "1", UserStore(redis_server.url, seconds=PATIENCE)).put_users(
            {3: {"activity": 0.7}}
        )
        sources = client.rank(3, [100, 7777], {"tab": "moon"}, debug=True).answer.sources
        assert sources["activity"] == "pushed"
        assert sources["tab"] == "unknown"
        assert sources["price"] == "looked up 1, unknown 1"
        assert server.pushed is not None
        assert server.pushed.counts.outcomes["used"] == 1
        publish_tiny(store, store.parent / "two", seed=1)
        wait_until(lambda: client.rank(3, [100]).version == 2)
        assert client.rank(3, [100], debug=True).answer.sources["activity"] == "pushed"


def test_debug_tells_apart_what_was_overridden_pushed_stale_null_unknown_and_looked_up(
    store: Path, redis_server: Redis
) -> None:
    settings = ServerSettings(
        store=store, port=0, user_store=redis_server.url, user_store_seconds=10, pushed=ALL, push_max_age_seconds=1800
    )
    now = int(time.time() * 1000)
    writer = FeatureWriter(store / "tiny" / "1", UserStore(redis_server.url, seconds=PATIENCE))
    writer.put_items({101: {"price": 0.5}}, at_ms=now)
    writer.put_items({102: {"price": 0.5}}, at_ms=now - 3_600_000)
    with start(settings) as server, RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client:

        def told(items: list[int], **given: Any) -> str:
            return client.rank(3, items, {"tab": "home"}, debug=True, **given).answer.sources["price"]

        assert told([100]) == "looked up"
        assert told([101]) == "pushed"
        assert told([102]) == "stale"
        assert told([7777]) == "unknown"
        assert told([100], item_features={"price": [1.5]}) == "overridden"
        assert told([100], item_features={"price": [None]}) == "null"
        assert told([100, 101, 102, 7777]) == "looked up 1, pushed 1, stale 1, unknown 1"
        assert client.rank(3, [100]).answer.sources == {}
        plain = client.rank(3, [100], debug=True).answer.sources
        assert (plain["tab"], plain["activity"]) == ("null", "looked up")
