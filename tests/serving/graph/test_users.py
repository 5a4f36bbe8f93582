"""The user store against a real redis-server: fresh users win, and its failures do not fail a request."""

from pathlib import Path

import numpy as np
import pytest
import redis

from contract.errors import ConfigError, DataError, RequestError, UnavailableError
from features.online.online_table import Found
from features.online.request_encoder import RankRequest, RequestEncoder
from serving.client.blocking_client import RankingClient
from serving.graph.user_blob import Packing, join
from serving.graph.users import UserStore, UserWriter
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.serving.redis_server import Redis
from tests.tiny_bundle import make_schema


@pytest.fixture
def bundle(store: Path) -> Path:
    return store / "tiny" / "1"


def test_a_stored_user_is_encoded_as_if_the_request_had_said_it(bundle: Path, users: UserStore) -> None:
    features = {"activity": 0.77}
    UserWriter(bundle, users).put({3: features, 77: {"activity": 0.5}})
    stored = RequestEncoder.open(bundle, users.over(make_schema().fingerprint()))
    plain = RequestEncoder.open(bundle)
    told = plain.encode(RankRequest(3, [101, 102], user_features=features))
    found = stored.encode(RankRequest(3, [101, 102]))
    for name, array in told.inputs.arrays().items():
        np.testing.assert_array_equal(found.inputs.arrays()[name], array)
    assert not stored.encode(RankRequest(77, [101])).unknown_user
    assert stored.encode(RankRequest(78, [101])).unknown_user
    assert (
        stored.encode(RankRequest(4, [101])).inputs.request.dense
        == plain.encode(RankRequest(4, [101])).inputs.request.dense
    )
    assert (users.found, users.missed, users.failed) == (2, 2, 0)


def test_lists_survive_packing_and_damage_is_noticed() -> None:
    row = Found(
        np.ones(1, np.bool_),
        np.array([[1, -2]], np.int32),
        np.zeros((1, 0), np.float32),
        np.array([[2**64 - 1]], np.uint64),
        {"a": (np.array([5, 6], np.int32), np.array([2])), "b": (np.zeros(0, np.int32), np.array([0]))},
    )
    packing = Packing(2, 0, 1, ("a", "b"))
    blob = packing.pack(row)
    for seen in (join([packing.unpack(blob)] * 2), join([row, row])):
        assert seen.ids.tolist() == [[1, -2]] * 2
        assert seen.key_hashes.tolist() == [[2**64 - 1]] * 2
        assert [(v.tolist(), n.tolist()) for v, n in seen.lists.values()] == [([5, 6, 5, 6], [2, 2]), ([], [0, 0])]
    for place in range(len(blob)):
        with pytest.raises(DataError, match="no intact user"):
            packing.unpack(blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :])
    for size in range(len(blob)):
        with pytest.raises(DataError, match="no intact user"):
            packing.unpack(blob[:size])


def test_blobs_of_another_schema_are_not_read(bundle: Path, users: UserStore) -> None:
    UserWriter(bundle, users).put({77: {}})
    assert RequestEncoder.open(bundle, users.over("0" * 16)).encode(RankRequest(77, [101])).unknown_user


def test_a_damaged_blob_is_ignored(bundle: Path, users: UserStore, redis_server: Redis) -> None:
    UserWriter(bundle, users).put({77: {}})
    with redis.Redis(port=redis_server.port) as client:
        (key,) = client.keys()
        blob = bytearray(client.get(key))
        blob[14] ^= 1
        client.set(key, bytes(blob))
    assert (
        RequestEncoder.open(bundle, users.over(make_schema().fingerprint())).encode(RankRequest(77, [1])).unknown_user
    )


def test_wrong_features_are_refused_before_anything_is_written(
    bundle: Path, users: UserStore, redis_server: Redis
) -> None:
    with pytest.raises(RequestError, match="no stored feature 'price'; allowed are: activity, user_id"):
        UserWriter(bundle, users).put({1: {}, 2: {"price": 3.0}})
    with redis.Redis(port=redis_server.port) as client:
        assert client.keys() == []


def test_a_server_goes_on_from_the_bundle_while_the_store_is_away(store: Path, redis_server: Redis) -> None:
    settings = ServerSettings(store=store, port=0, user_store=redis_server.url, user_store_seconds=1.0)
    with start(settings) as running, RankingClient(f"127.0.0.1:{running.port}") as client:
        writer = UserWriter(store / "tiny" / "1", UserStore(redis_server.url, seconds=2))
        before = client.rank(1, [100, 101])
        writer.put({1: {"activity": 5.0}})
        fresh = client.rank(1, [100, 101])
        assert not np.array_equal(before.predictions["like"], fresh.predictions["like"])
        redis_server.stop()
        for _ in range(3):
            np.testing.assert_array_equal(client.rank(1, [100, 101]).predictions["like"], before.predictions["like"])
        assert running.users is not None
        assert running.users.failed == 3
        with pytest.raises(UnavailableError, match="did not take"):
            writer.put({1: {}})


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no user store"):
        UserStore("http://127.0.0.1")
