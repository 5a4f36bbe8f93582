"""Versions are swapped under load: no call fails, and each answer is of one version throughout."""

import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from features.online.request_encoder import RankRequest
from serving.client.blocking_client import RankingClient
from serving.graph.served_model import RankingModel
from serving.grpc_server.server import start
from serving.grpc_server.server_settings import ServerSettings
from serving.store.local_store import point
from tests.faults.conftest import FRONTS, Front, Rounds
from tests.patience import PATIENCE, wait_until
from tests.tiny_bundle import publish_tiny

ITEMS = list(range(100, 120))
Answers = Mapping[str, NDArray[np.float32]]


def is_of_one_version(predictions: Answers, expected: Answers) -> bool:
    """Whether every task's answers are those of one version."""
    return all(np.array_equal(predictions[task], expected[task]) for task in expected)


@pytest.mark.parametrize("front", FRONTS)
def test_swaps_under_load_fail_no_call_and_mix_no_versions(
    store: Path, tmp_path: Path, rounds: type[Rounds], front: Front
) -> None:
    publish_tiny(store, tmp_path / "two", seed=1)
    request = RankRequest(3, ITEMS, {"tab": "home"})
    expected = {v: RankingModel.open(store / "tiny" / str(v)).rank(request).predictions for v in (1, 2)}
    assert not is_of_one_version(expected[1], expected[2])
    seen: list[int] = []
    problems: list[Any] = []
    done = threading.Event()

    def ask(port: int) -> None:
        with RankingClient(f"127.0.0.1:{port}", attempts=1, seconds=PATIENCE) as client:
            while not done.is_set():
                try:
                    result = client.rank(3, ITEMS, {"tab": "home"})
                except Exception as error:  # noqa: BLE001 any failure is what this test looks for
                    problems.append(error)
                    continue
                seen.append(result.version)
                if not is_of_one_version(result.predictions, expected[result.version]):
                    problems.append(result)

    with start(ServerSettings(store=store, port=0, front=front, poll_seconds=600)) as server:
        threads = [threading.Thread(target=ask, args=(server.port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for swap in range(rounds.of(50, 500)):
            point(store, "tiny", swap % 2 + 1)
            server.registry.refresh()
            assert server.registry.get().version == swap % 2 + 1
            if swap < 2:
                wait_until(partial(seen.__contains__, swap % 2 + 1))
        done.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert {1, 2} == set(seen)


def test_control_an_answer_of_two_versions_is_noticed(store: Path, tmp_path: Path) -> None:
    publish_tiny(store, tmp_path / "two", seed=1)
    request = RankRequest(3, ITEMS, {"tab": "home"})
    first, second = (RankingModel.open(store / "tiny" / v).rank(request).predictions for v in ("1", "2"))
    assert is_of_one_version(first, first)
    assert not is_of_one_version({"like": first["like"], "rating": second["rating"]}, first)
