"""Under load a server gives less of the model before it refuses, and ranks by priors when half the time is gone."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.errors import OverloadedError
from serving.api import degradation
from serving.client.blocking_client import RankingClient
from serving.graph.stages import FALLBACK_STAGE, FEWER_STAGE
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.staged_bundle import publish_staged

QUEUE = 9
ITEMS = list(range(100, 110))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_staged(tmp_path / "store", tmp_path / "work")
    return tmp_path / "store"


@contextmanager
def occupied(server: RunningServer) -> Iterator[None]:
    """The server's only thread is busy for as long as the block takes."""
    go = threading.Event()
    server._pool.submit(go.wait, PATIENCE)
    try:
        yield
    finally:
        go.set()


def waiting(server: RunningServer, calls: int) -> None:
    """Until so many calls wait or run."""
    wait_until(lambda: server._pool.pending >= calls)


def test_calls_get_fewer_experts_before_any_is_refused_and_the_whole_model_after(store: Path) -> None:
    settings = ServerSettings(store=store, port=0, threads=1, max_queue=QUEUE)
    with (
        start(settings) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE, attempts=1) as client,
        ThreadPoolExecutor(QUEUE) as callers,
    ):
        with occupied(server):
            calls = [callers.submit(client.rank, 3, ITEMS) for _ in range(QUEUE)]
            waiting(server, 1 + QUEUE)
            with pytest.raises(OverloadedError):
                client.rank(3, ITEMS)
        stages = [call.result().stage for call in calls]
        assert set(stages) == {"", FEWER_STAGE}
        # From half of what the server admits on, whoever is answered while so many wait.
        assert stages.count(FEWER_STAGE) >= QUEUE // 2
        assert client.rank(3, ITEMS).stage == ""


def test_calls_that_waited_for_most_of_their_deadline_are_ranked_by_priors(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A share of a deadline that no busy machine lets pass; tests/serving/graph/test_stages.py has the real one.
    monkeypatch.setattr(degradation, "FALLBACK_FROM", 1.0 / PATIENCE)
    settings = ServerSettings(store=store, port=0, threads=1, max_queue=QUEUE)
    with (
        start(settings) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
        ThreadPoolExecutor(3) as callers,
    ):
        client.wait_until_ready(PATIENCE)
        with occupied(server):
            calls = [callers.submit(client.rank, 3, ITEMS) for _ in range(3)]
            waiting(server, 4)
            time.sleep(1.1)
        answers = [call.result() for call in calls]
    assert {answer.stage for answer in answers} == {FALLBACK_STAGE}
    assert answers[0].ranked == sorted(ITEMS, reverse=True)


def test_with_degradation_switched_off_late_calls_get_the_whole_model(store: Path) -> None:
    settings = ServerSettings(store=store, port=0, threads=1, max_queue=QUEUE, degrade=False)
    with (
        start(settings) as server,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as client,
        ThreadPoolExecutor(QUEUE) as callers,
    ):
        with occupied(server):
            calls = [callers.submit(client.rank, 3, ITEMS) for _ in range(QUEUE)]
            waiting(server, 1 + QUEUE)
        assert {call.result().stage for call in calls} == {""}
