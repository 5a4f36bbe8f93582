"""A thousand calls are held open without a message; good calls hardly notice, and a careless server stops."""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2

from contract.errors import DeadlineError
from serving.client.blocking_client import RankingClient
from serving.grpc_server.grpcio_call import GrpcioCall
from serving.grpc_server.handlers import UnaryBehaviour
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.faults.conftest import FRONTS, LONG, Front, Rounds, Tell
from tests.faults.load import HEALTH, RANK, one_after_the_other, serving
from tests.patience import PATIENCE

HELD = 1000
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PROBE_SECONDS = 1.0
"""How long Kubernetes waits for a probe's answer by default."""
STRETCH = 2.0
"""How many times longer the slowest of good calls may take."""
SLOWEST = 99 if LONG else 90
"""The percentile that counts: of a few hundred calls, the slowest hundredth are what else the machine did."""
ATTEMPTS = 4
"""Timings on a busy machine need more than one try."""


async def measured(port: int, calls: int, rounds: int = 3) -> float:
    """How slow good calls are beside half-open ones, in multiples of those without; in turns, so that both see the
    same machine.

    Without is measured twice, before and after: what differs between those two is the machine's.
    """
    before: list[float] = []
    beside: list[float] = []
    after: list[float] = []
    own = [("grpc.use_local_subchannel_pool", 1)]
    for _ in range(rounds):
        before += (await one_after_the_other(port, calls)).answered
        async with aio.insecure_channel(f"127.0.0.1:{port}", own) as channel:
            silent: Any = channel.stream_unary(RANK, bytes, bytes)
            held = [silent() for _ in range(HELD)]
            # Their headers are on the wire once the loop has run for a while.
            await asyncio.sleep(1)
            outcome = await one_after_the_other(port, calls)
            assert not any(call.done() for call in held)
            for call in held:
                call.cancel()
            await asyncio.sleep(0.5)
        assert not outcome.other
        assert not outcome.refused
        beside += outcome.answered
        after += (await one_after_the_other(port, calls)).answered
    return slowest(beside) / max(slowest(before), slowest(after))


def slowest(latencies: list[float]) -> float:
    return float(np.percentile(latencies, SLOWEST))


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
def test_a_thousand_half_open_calls_do_not_double_the_latency_of_good_ones(
    store: Path, rounds: type[Rounds], front: Front, record_property: Tell
) -> None:
    stretches = []
    for _ in range(ATTEMPTS):
        with serving(store, "--front", front, "--message-seconds", "600") as served:
            stretches.append(asyncio.run(measured(served.port, rounds.of(300, 2000))))
        if stretches[-1] <= STRETCH:
            break
    record_property(f"p{SLOWEST} beside {HELD} half-open calls over that without, by trial", stretches)
    assert min(stretches) <= STRETCH, stretches


async def health_beside(port: int, silent: int, checks: int) -> list[float]:
    """How long each answer of health took beside open reflection streams and checks whose message does not come."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    channel: Any
    asking: Any
    async with (
        aio.insecure_channel(f"127.0.0.1:{port}", own) as channel,
        aio.insecure_channel(f"127.0.0.1:{port}", own) as asking,
    ):
        held = [channel.stream_stream(REFLECTION, bytes, bytes)() for _ in range(6)]
        held += [channel.stream_unary(HEALTH, bytes, bytes)() for _ in range(silent)]
        await asyncio.sleep(1)
        took = []
        check = asking.unary_unary(HEALTH)
        for _ in range(checks):
            began = time.perf_counter()
            answer = health_pb2.HealthCheckResponse.FromString(await check(b"", timeout=PATIENCE))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            took.append(time.perf_counter() - began)
        assert sum(not call.done() for call in held) >= silent
        for call in held:
            call.cancel()
        return took


@pytest.mark.skipif(not LONG, reason="the short form is in tests/serving/grpc_server/test_message_first.py")
@pytest.mark.parametrize("front", FRONTS)
def test_health_answers_beside_open_reflection_streams_and_silent_checks(
    store: Path, front: Front, record_property: Tell
) -> None:
    with serving(store, "--front", front, "--message-seconds", "600") as served:
        took = asyncio.run(health_beside(served.port, HELD, 2000))
    record_property(f"p{SLOWEST} of health's answers, seconds", slowest(took))
    assert slowest(took) < PROBE_SECONDS


def careless(self: UnaryBehaviour, call: GrpcioCall, _: Any) -> None:
    """Take a thread first and wait on it for the message, as grpcio does."""

    def wait() -> None:
        arrived: list[bytes | None] = []
        call.receive(arrived.append)
        while not arrived and call.active:
            pass
        if arrived and arrived[0] is not None:
            self._answer(call, arrived[0])

    self._pool.submit(wait)


@contextmanager
def few_held(server: RunningServer) -> Iterator[None]:
    """Four calls whose message does not come, which the server has taken up."""

    async def hold(ready: asyncio.Event, over: asyncio.Event) -> None:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            silent: Any = channel.stream_unary(RANK, bytes, bytes)
            held = [silent() for _ in range(4)]
            async with asyncio.timeout(PATIENCE):
                while server._pool.pending < len(held):  # noqa: ASYNC110 the server tells nobody
                    await asyncio.sleep(0.01)
            ready.set()
            await over.wait()
            for call in held:
                call.cancel()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready, over = asyncio.Event(), asyncio.Event()
        holding = loop.create_task(hold(ready, over))
        until: Coroutine[Any, Any, Any] = ready.wait()
        loop.run_until_complete(until)
        yield
        over.set()
        loop.run_until_complete(holding)


def test_control_a_server_that_takes_a_thread_first_stops(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnaryBehaviour, "begin", careless)
    with (
        start(ServerSettings(store=store, port=0, threads=2)) as server,
        few_held(server),
        RankingClient(f"127.0.0.1:{server.port}", seconds=2, attempts=1) as client,
        pytest.raises(DeadlineError),
    ):
        client.rank(1, [100])
