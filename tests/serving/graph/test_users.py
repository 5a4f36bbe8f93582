"""The user store against a real redis-server: fresh users win, and its failures do not fail a request."""

from pathlib import Path

import numpy as np
import pytest

from contract.errors import ConfigError, DataError, UnavailableError
from features.online.online_table import TableRows
from features.point_in_time.ragged import Ragged
from serving.client.blocking_client import RankingClient
from serving.graph.feature_writer import FeatureWriter
from serving.graph.user_blob import UserBlob, join
from serving.graph.users import UserStore
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE
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
        with pytest.raises(DataError, match="no intact user"):
            layout.decode(blob[:place] + bytes([blob[place] ^ 4]) + blob[place + 1 :])
    for size in range(len(blob)):
        with pytest.raises(DataError, match="no intact user"):
            layout.decode(blob[:size])


def test_a_server_goes_on_from_the_bundle_while_the_store_is_away(store: Path, redis_server: Redis) -> None:
    settings = ServerSettings(store=store, port=0, user_store=redis_server.url, user_store_seconds=10)
    with start(settings) as running, RankingClient(f"127.0.0.1:{running.port}") as client:
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


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no user store"):
        UserStore("http://127.0.0.1")
