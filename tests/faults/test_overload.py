"""Ten times more calls than the server can answer: it answers what it can in time and refuses the rest at once."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2

from serving.call import Call
from serving.generate import ROOT
from serving.outgoing import build_request
from serving.server import RunningServer, start
from serving.settings import ServerSettings
from serving.stubs.moerank.v1 import ranking_pb2
from tests.faults.conftest import LONG, Rounds
from tests.tiny_bundle import publish_tiny

Run = Callable[[Coroutine[Any, Any, "Outcome"]], "Outcome"]
RANK = "/moerank.v1.RankingService/Rank"
HEALTH = "/grpc.health.v1.Health/Check"
BODY = build_request(user=1, items=[100 + i % 20 for i in range(40)]).SerializeToString()
# On a busy machine the short form only shows the shape of things.
GOODPUT, STRETCH, REFUSAL_SECONDS = (0.8, 3.0, 0.02) if LONG else (0.5, 8.0, 0.2)


@dataclass
class Outcome:
    """Latencies in seconds of answered and refused calls, what else happened, and health's answers."""

    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    without_retry_info: int = 0
    unhealthy: int = 0


@contextmanager
def serving(store: Path, max_queue: int) -> Iterator[int]:
    command = [
        sys.executable,
        "-m",
        "serving",
        str(store),
        "--port",
        "0",
        "--threads",
        "1",
        "--max-queue",
        str(max_queue),
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            yield next(int(m[1]) for line in child.stderr if (m := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
        finally:
            # Without this a test that fails would wait for the server for ever.
            child.terminate()
            child.wait(30)


def has_retry_info(error: aio.AioRpcError) -> bool:
    metadata: Any = error.trailing_metadata()
    found = status_pb2.Status.FromString(dict(metadata)["grpc-status-details-bin"]).details
    return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in found)


async def one(call: Any, outcome: Outcome) -> None:
    began = time.perf_counter()
    try:
        await call(BODY, timeout=5)
        outcome.answered.append(time.perf_counter() - began)
    except aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            outcome.refused.append(time.perf_counter() - began)
            outcome.without_retry_info += not has_retry_info(error)
        else:
            outcome.other.append(f"{error.code().name}: {error.details()}")


async def check_health(channel: Any, outcome: Outcome, end: float) -> None:
    check = channel.unary_unary(HEALTH, response_deserializer=health_pb2.HealthCheckResponse.FromString)
    while time.perf_counter() < end:
        try:
            answer = await check(b"", timeout=5)
            outcome.unhealthy += answer.status != health_pb2.HealthCheckResponse.SERVING
        except aio.AioRpcError:
            outcome.unhealthy += 1
        await asyncio.sleep(0.1)


async def one_after_the_other(port: int, count: int) -> Outcome:
    outcome = Outcome()
    channel: Any
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(count):
            await one(channel.unary_unary(RANK), outcome)
    return outcome


async def flood(port: int, rate: float, seconds: float) -> Outcome:
    """Calls at a rate, whether or not earlier ones have been answered."""
    outcome = Outcome()
    channel: Any
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(RANK)
        began = time.perf_counter()
        tasks = [asyncio.create_task(check_health(channel, outcome, began + seconds))]
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * rate)
            tasks += [asyncio.create_task(one(call, outcome)) for _ in range(due - sent)]
            sent = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    return outcome


def p99(latencies: list[float]) -> float:
    return float(np.percentile(latencies, 99))


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs calls on one event loop for the whole file."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def heavy(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work", layers=30)
    return tmp_path / "store"


@pytest.mark.slow
def test_overload_is_refused_at_once_and_the_rest_is_answered_in_time(
    heavy: Path, rounds: type[Rounds], run: Run
) -> None:
    seconds = rounds.of(4, 20)
    with serving(heavy, max_queue=1) as port:
        alone = run(one_after_the_other(port, 100))
        capacity = len(alone.answered) / sum(alone.answered)
        outcome = run(flood(port, 10 * capacity, seconds))
        time.sleep(2)
        after = run(one_after_the_other(port, 30))
    assert not set(outcome.other)
    assert outcome.unhealthy == outcome.without_retry_info == 0
    assert len(outcome.answered) >= GOODPUT * capacity * seconds
    assert p99(outcome.answered) <= STRETCH * p99(alone.answered)
    assert np.median(outcome.refused) <= REFUSAL_SECONDS
    assert not after.refused
    assert np.median(after.answered) <= 2 * np.median(alone.answered)


@pytest.mark.slow
def test_control_without_admission_calls_are_late(heavy: Path, run: Run) -> None:
    with serving(heavy, max_queue=100_000) as port:
        alone = run(one_after_the_other(port, 50))
        capacity = len(alone.answered) / sum(alone.answered)
        outcome = run(flood(port, 10 * capacity, 2))
    assert not outcome.refused
    assert p99(outcome.answered) > 3 * STRETCH * p99(alone.answered)


def executions(server: RunningServer, seconds: float) -> int:
    """How often the model ran for a batch of 100 users that waits so long."""
    request = ranking_pb2.RankRequest.FromString(BODY)
    body = ranking_pb2.BatchRankRequest(requests=[request] * 100).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call: Any = channel.unary_unary("/moerank.v1.RankingService/BatchRank", bytes, bytes)
        before = server.telemetry.work()[0].executions
        with pytest.raises(grpc.RpcError) as late:
            call(body, timeout=seconds)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert server._pool.wait_idle(60)
    return server.telemetry.work()[0].executions - before


def test_expired_work_never_reaches_the_model(heavy: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    with start(ServerSettings(store=heavy, port=0, threads=1)) as server:
        run(one_after_the_other(server.port, 3))
        assert executions(server, 0.05) < 60
        # The control: without the check the model works on for a caller who has left.
        monkeypatch.setattr(Call, "require_time", lambda _: None)
        assert executions(server, 0.05) == 100
