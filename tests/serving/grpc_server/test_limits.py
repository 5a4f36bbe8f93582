"""Limits on messages, streams, the age of connections and the time to end; each beside a server without it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from contract.errors import DeadlineError, MoerankError, OverloadedError
from serving.client.blocking_client import Query, RankingClient
from serving.grpc_server import listener, server_builder
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.serving.held_calls import Held

RANK = "/moerank.v1.RankingService/Rank"


def test_a_message_may_not_be_larger_than_allowed(store: Path) -> None:
    items = [100] * 4000
    for limit, refused in ((2048, True), (1 << 20, False)):
        settings = ServerSettings(store=store, port=0, max_message_bytes=limit)
        with (
            start(settings) as server,
            RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client,
        ):
            if refused:
                with pytest.raises(OverloadedError, match="larger than max"):
                    client.rank(1, items)
            else:
                assert len(client.rank(1, items).scores) == len(items)
            assert client.rank(1, [100]).version == 1


@contextmanager
def holding(server: RunningServer, channel: grpc.Channel, count: int) -> Iterator[None]:
    """So many calls on a connection that never send a message."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    silent: Any = channel.stream_unary(RANK, bytes, bytes)
    held = [silent.future(nothing()) for _ in range(count)]
    wait_until(lambda: server._listener.without_message == count)
    try:
        yield
    finally:
        over.set()
        for call in held:
            call.cancel()


@pytest.mark.parametrize(("streams", "answered"), [(2, False), (1024, True)])
def test_a_connection_may_not_have_more_calls_at_once_than_allowed(
    store: Path, streams: int, *, answered: bool
) -> None:
    settings = ServerSettings(store=store, port=0, threads=8, max_streams=streams)
    own = [("grpc.use_local_subchannel_pool", 1)]
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}", own) as channel:
        ready: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerReady", bytes, bytes)
        ready(b"")
        with holding(server, channel, 2):
            if answered:
                ready(b"", timeout=PATIENCE)
            else:
                with pytest.raises(grpc.RpcError) as late:
                    ready(b"", timeout=1)
                assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # Other connections have streams of their own.
            with RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE) as other:
                assert other.rank(1, [100]).version == 1


@pytest.mark.parametrize(("age", "closed"), [(0.5, True), (0.0, False)])
def test_an_old_connection_is_closed_and_no_call_fails(store: Path, age: float, *, closed: bool) -> None:
    settings = ServerSettings(store=store, port=0, connection_age_seconds=age)
    states: list[grpc.ChannelConnectivity] = []
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        channel.subscribe(states.append)
        ready: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerReady", bytes, bytes)
        end = time.monotonic() + (PATIENCE if closed else 1.2)
        while time.monotonic() < end and grpc.ChannelConnectivity.IDLE not in after_ready(states):
            ready(b"", timeout=PATIENCE)
            time.sleep(0.01)
    assert (grpc.ChannelConnectivity.IDLE in after_ready(states)) is closed


@pytest.mark.parametrize("front", ["grpcio", "native"])
@pytest.mark.parametrize(("idle", "closed"), [(0.5, True), (0.0, False)])
def test_a_connection_without_calls_is_closed_after_the_time_that_is_allowed(
    store: Path, front: Any, idle: float, *, closed: bool
) -> None:
    settings = ServerSettings(store=store, port=0, front=front, connection_idle_seconds=idle)
    states: list[grpc.ChannelConnectivity] = []
    with start(settings) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        channel.subscribe(states.append)
        ready: Any = channel.unary_unary("/inference.GRPCInferenceService/ServerReady", bytes, bytes)
        ready(b"", timeout=PATIENCE)
        if closed:
            wait_until(lambda: grpc.ChannelConnectivity.IDLE in after_ready(states))
        else:
            time.sleep(1.2)
    assert (grpc.ChannelConnectivity.IDLE in after_ready(states)) is closed


def after_ready(states: list[grpc.ChannelConnectivity]) -> list[grpc.ChannelConnectivity]:
    ready = grpc.ChannelConnectivity.READY
    return states[states.index(ready) :] if ready in states else []


@pytest.mark.parametrize(("grace", "answered"), [(PATIENCE, True), (0.05, False)])
def test_calls_under_way_may_end_within_the_grace_time_and_not_later(
    store: Path, monkeypatch: pytest.MonkeyPatch, grace: float, *, answered: bool
) -> None:
    server = start(ServerSettings(store=store, port=0, threads=1))
    held = Held(server, monkeypatch)
    seen: list[object] = []

    def ask() -> None:
        with RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client:
            try:
                seen.extend(client.batch_rank([Query(1, [100])]))
            except MoerankError as error:
                seen.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    assert held.entered.acquire(timeout=PATIENCE)
    ending = threading.Thread(target=server.stop, kwargs={"grace_seconds": grace})
    ending.start()
    listener: Any = server._listener
    if answered:
        wait_until(lambda: listener._admission.stopping)
        held.go.set()
    # Where the grace time is over, it ends though the service still works on it.
    caller.join()
    held.go.set()
    ending.join()
    assert isinstance(seen[0], MoerankError) is not answered
    assert not isinstance(seen[0], DeadlineError)


@pytest.mark.parametrize(("allowed_ms", "kept"), [(1, True), (60_000, False)], ids=["allowed", "too often"])
def test_a_connection_that_is_asked_no_more_often_than_allowed_is_kept(
    store: Path, monkeypatch: pytest.MonkeyPatch, allowed_ms: int, *, kept: bool
) -> None:
    monkeypatch.setattr(server_builder, "PING_MS", allowed_ms)
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 50),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    with (
        start(ServerSettings(store=store, port=0)) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel,
    ):
        watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        if kept:
            # Three that came too early would have ended it.
            time.sleep(0.5)
            assert watch.is_active()
        else:
            with pytest.raises(grpc.RpcError, match="pings"):
                next(watch)
        watch.cancel()


def test_a_server_ends_though_grpcio_lost_count_of_a_call(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CLOSE_SECONDS", 0.1)
    server = start(ServerSettings(store=store, port=0))
    inner: Any = server._listener
    stop = inner.server.stop

    def never_done(grace: float) -> threading.Event:
        stop(grace)
        return threading.Event()

    monkeypatch.setattr(inner.server, "stop", never_done)
    server.stop()
