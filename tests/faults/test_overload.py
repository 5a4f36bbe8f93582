"""Ten times more calls than the server can answer: it answers what it can in time and refuses the rest at once."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serving.graph.context import CallContext
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from serving.stubs.moerank.v1 import ranking_pb2
from tests.faults.conftest import FRONTS, LONG, Front, Rounds, Tell
from tests.faults.load import BODY, Outcome, flood, one_after_the_other, p99, serving
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny

Run = Callable[[Coroutine[Any, Any, "Outcome"]], "Outcome"]
# On a busy machine the short form only shows the shape of things.
GOODPUT, STRETCH, REFUSAL_SECONDS = (0.8, 3.0, 0.02) if LONG else (0.5, 8.0, 0.2)
SLOWER, TRIES = 2.0, 5
# Whatever else the machine does can only make calls slower: of times, one trial without such company is enough. What
# the server says has to be right in every trial.
ATTEMPTS = 3
USERS = 400
"""Of one batch: it takes so long that a quarter of the time is enough for the call to arrive."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs calls on one event loop for the whole file."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work", layers=30)
    return tmp_path / "store"


def late(port: int, seconds: float, run: Run, tell: Tell) -> list[str]:
    """What took too long under ten times the load that a server can answer.

    An idle server is measured before and after, and counts as the slower of both: the machine may have changed.
    """
    before = run(one_after_the_other(port, 100))
    outcome = run(flood(port, 10 * capacity(before), seconds))
    after = recovered(port, float(np.median(before.answered)), run)
    goodput = len(outcome.answered) / seconds / min(capacity(before), capacity(after))
    stretch = p99(outcome.answered) / max(p99(before.answered), p99(after.answered))
    refusal = float(np.median(outcome.refused))
    slower = float(np.median(after.answered) / np.median(before.answered))
    # After a stop of the whole machine gRPC itself refuses streams, before the server sees them.
    removed = [end for end in outcome.other if "stream removed" in end.lower()]
    assert outcome.other == removed
    assert outcome.unhealthy == outcome.without_retry_info == 0
    assert not after.refused
    promises = {
        f"{len(removed)} streams removed by gRPC": not removed,
        f"goodput {goodput:.2f} of capacity, at least {GOODPUT}": goodput >= GOODPUT,
        f"p99 of answers {stretch:.1f} times that of an idle server, at most {STRETCH}": stretch <= STRETCH,
        f"refused within {refusal:.3f} s, at most {REFUSAL_SECONDS}": refusal <= REFUSAL_SECONDS,
        f"afterwards {slower:.1f} times as slow as before, at most {SLOWER}": slower <= SLOWER,
    }
    tell("a trial", "; ".join(promises))
    return [promise for promise, kept in promises.items() if not kept]


def capacity(idle: Outcome) -> float:
    """Calls a second, by one caller."""
    return len(idle.answered) / sum(idle.answered)


def recovered(port: int, median: float, run: Run) -> Outcome:
    """Calls to a server that rests, once they are about as quick as this; or the last of several tries."""
    for _ in range(TRIES):
        time.sleep(1)
        outcome = run(one_after_the_other(port, 100))
        if np.median(outcome.answered) <= SLOWER * median:
            break
    return outcome


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.slow
def test_overload_is_refused_at_once_and_the_rest_is_answered_in_time(
    heavy: Path, rounds: type[Rounds], run: Run, front: Front, record_property: Tell
) -> None:
    broken: list[str] = []
    for _ in range(ATTEMPTS):
        with serving(heavy, "--front", front, "--threads", "1", "--max-queue", "1") as served:
            broken = late(served.port, rounds.of(4, 20), run, record_property)
        if not broken:
            break
    assert not broken


@pytest.mark.slow
def test_control_without_admission_calls_are_late(heavy: Path, run: Run) -> None:
    stretch = 0.0
    for _ in range(ATTEMPTS):
        with serving(heavy, "--threads", "1", "--max-queue", "100000") as served:
            alone = run(one_after_the_other(served.port, 50))
            outcome = run(flood(served.port, 10 * capacity(alone), 2, patience=5))
        assert not outcome.refused
        stretch = p99(outcome.answered) / p99(alone.answered)
        if stretch > 3 * STRETCH:
            break
    assert stretch > 3 * STRETCH


def executions(server: RunningServer, seconds: float) -> tuple[grpc.StatusCode, int]:
    """How a batch of `USERS` ends whose caller waits so long, and how often the model ran for it."""
    request = ranking_pb2.RankRequest.FromString(BODY)
    body = ranking_pb2.BatchRankRequest(requests=[request] * USERS).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        before = server.telemetry.work()[0].executions
        call: Any = channel.unary_unary("/moerank.v1.RankingService/BatchRank", bytes, bytes).future(body, seconds)
        code = call.code()
    assert server._pool.wait_idle(PATIENCE)
    return code, server.telemetry.work()[0].executions - before


def test_expired_work_never_reaches_the_model(heavy: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    settings = ServerSettings(store=heavy, port=0, threads=1, max_users=USERS, max_candidates=40 * USERS)
    with start(settings) as server:
        run(one_after_the_other(server.port, 3))
        began = time.perf_counter()
        assert executions(server, PATIENCE) == (grpc.StatusCode.OK, USERS)
        quarter = (time.perf_counter() - began) / 4
        code, ran = executions(server, quarter)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ran < USERS
        # The control: without the check the model works on for a caller who has left.
        monkeypatch.setattr(CallContext, "require_time", lambda _: None)
        assert executions(server, quarter) == (grpc.StatusCode.DEADLINE_EXCEEDED, USERS)
