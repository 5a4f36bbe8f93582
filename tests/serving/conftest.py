"""A running server on a tiny bundle, a client of it, and a store of users."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client.blocking_client import RankingClient
from serving.graph.users import UserStore
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE
from tests.serving.redis_server import SERVER, Redis
from tests.tiny_bundle import publish_tiny


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    return tmp_path / "store"


@pytest.fixture
def server(store: Path) -> Iterator[RunningServer]:
    settings = ServerSettings(store=store, port=0, poll_seconds=0.05, max_candidates=50, max_users=4)
    with start(settings) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[RankingClient]:
    with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as connected:
        yield connected


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    if SERVER is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    running = Redis(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def users(redis_server: Redis) -> Iterator[UserStore]:
    opened = UserStore(redis_server.url, seconds=PATIENCE)
    yield opened
    opened.close()
