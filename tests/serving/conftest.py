"""A running server on a tiny bundle, and a client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import RankingClient
from serving.server import RunningServer, start
from serving.settings import ServerSettings
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
    with RankingClient(f"127.0.0.1:{server.port}") as connected:
        yield connected
