"""The user store against a real redis-server: fresh users win, and its failures do not fail a request."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import ConfigError, DataError, UnavailableError
from features.online.online_table import TableRows
from features.online.request_encoder import RankRequest
from features.point_in_time.ragged import Ragged
from serving.client.blocking_client import RankingClient
from serving.graph.feature_writer import FeatureWriter
from serving.graph.model_graphs import EngineOptions
from serving.graph.pushed_features import PushedReader
from serving.graph.recent_users import RecentUsers
from serving.graph.served_model import RankingModel
from serving.graph.user_blob import UserBlob, join
from serving.graph.user_export import export_users
from serving.graph.users import UserStore
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.serving.redis_server import Redis


def test_lists_survive_blob_and_damage_is_noticed() -> None:
    row = TableRows(
        np.ones(1, np.bool_),
        np.array([[1, -2]], np.int32),
        np.zeros((1, 0), np.float32),
        np.array([[2**64 - 1]], np.uint64),
        {"a": Ragged(np.array([5, 6], np.int32), np.array([0, 2])), "b": Ragged.empty(1)},
    )
    layout = UserBlob(2, 0, 1, ("a", "b"))
    blob = layout.encode(row)
    for seen in (join([layout.decode(blob)] * 2), join([row, row])):
        assert seen.ids.tolist() == [[1, -2]] * 2
        assert seen.key_hashes.tolist() == [[2**64 - 1]] * 2
        assert [(x.values.tolist(), x.lengths.tolist()) for x in seen.lists.values()] == [
            ([5, 6, 5, 6], [2, 2]),
            ([], [0, 0]),
        ]
    for place in range(len(blob)):
        with pytest.raises(DataError, match="not an intact user"):
            layout.decode(blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :])
    for size in range(len(blob)):
        with pytest.raises(DataError, match="not an intact user"):
            layout.decode(blob[:size])


def test_a_server_goes_on_from_the_bundle_while_the_store_is_away(store: Path, redis_server: Redis) -> None:
    settings = ServerSettings(store=store, port=0, user_store=redis_server.url, user_store_seconds=10)
    with start(settings) as running, RankingClient(f"127.0.0.1:{running.port}", seconds=PATIENCE) as client:
        writer = FeatureWriter(store / "tiny" / "1", UserStore(redis_server.url, seconds=PATIENCE))
        before = client.rank(1, [100, 101])
        writer.put_users({1: {"activity": 5.0}})
        fresh = client.rank(1, [100, 101])
        assert not np.array_equal(before.predictions["like"], fresh.predictions["like"])
        redis_server.stop()
        for _ in range(3):
            np.testing.assert_array_equal(client.rank(1, [100, 101]).predictions["like"], before.predictions["like"])
        assert running.users is not None
        assert running.users.failed == 6
        with pytest.raises(UnavailableError, match="did not take"):
            writer.put_users({1: {"activity": 5.0}})


def test_a_key_that_has_grown_without_end_keeps_nobody_elses_values_away(redis_server: Redis) -> None:
    client = redis_server.client()
    client.mset({b"grown": b"x" * 30_000_000, b"other": b"value"})
    # Less time than 30 MB take, as a look-up has.
    users = UserStore(redis_server.url, seconds=0.02)
    # On a busy machine the store itself may be late at first, and is left alone for a second then.
    wait_until(lambda: users.get([b"grown", b"other"]) == [None, b"value"])
    failed = users.failed
    assert [users.get([b"other", b"grown", b"none"]) for _ in range(20)] == [[b"value", None, None]] * 20
    assert users.failed == failed
    assert users.get([b"grown"]) == [None]


def test_recent_users_are_kept_for_a_time_and_at_most_so_many() -> None:
    now = [0.0]
    recent = RecentUsers(5.0, 3, lambda: now[0])
    for user in range(5):
        recent.put(user, unknown())
    assert [user for user in range(5) if recent.get(user) is not None] == [2, 3, 4]
    now[0] = 5.1
    assert recent.get(4) is None
    recent.put(9, unknown())
    assert len(recent) == 2
    off = RecentUsers(0.0, 3)
    off.put(1, unknown())
    assert off.get(1) is None


def unknown() -> TableRows:
    none = np.zeros((1, 0))
    return TableRows(np.zeros(1, np.bool_), none.astype(np.int32), none.astype(np.float32), none.astype(np.uint64), {})


def test_what_a_request_notes_of_a_user_is_not_kept() -> None:
    recent = RecentUsers(5.0, 3)
    recent.put(1, unknown())
    for _ in range(2):
        row = recent.get(1)
        assert row is not None
        assert not row.known.any()
        row.known[:] = True


def test_pages_of_a_user_read_the_store_once_a_version_and_see_what_is_pushed(store: Path, redis_server: Redis) -> None:
    bundle = store / "tiny" / "1"
    users = UserStore(redis_server.url, seconds=PATIENCE, keep_seconds=600)
    export_users(bundle, users)
    options = EngineOptions(users=users, pushed=PushedReader(users, ["user"]))
    first, second = (RankingModel.open(bundle, options) for _ in range(2))
    page = RankRequest(1, [100, 101])
    before = first.rank(page).predictions["like"]
    redis_server.client().delete(*redis_server.client().keys("moerank:*:user:*"))
    np.testing.assert_array_equal(first.rank(page).predictions["like"], before)
    assert (users.found, users.missed) == (1, 0)
    # A version that was swapped in keeps its own, and asks.
    second.rank(page)
    assert users.missed == 1
    FeatureWriter(bundle, users).put_users({1: {"activity": 5.0}})
    assert not np.array_equal(first.rank(page).predictions["like"], before)


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a user store"):
        UserStore("http://127.0.0.1")
