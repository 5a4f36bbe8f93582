"""A call takes no thread before its message has come, and health takes none at all."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client.blocking_client import RankingClient
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until

RANK = "/moerank.v1.RankingService/Rank"
HEALTH = "/grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
OWN = [("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def half_open(port: int, path: str, count: int) -> Iterator[list[Any]]:
    """So many calls whose headers are sent and whose message never is."""
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}", OWN)) for _ in range(1 + count // 500)
        ]
        silent: list[Any] = [channel.stream_unary(path, bytes, bytes) for channel in channels]
        calls = [silent[number % len(silent)].future(nothing()) for number in range(count)]
        stack.callback(lambda: [call.cancel() for call in calls])
        stack.callback(over.set)
        yield calls


def wait_for(server: RunningServer, calls: int) -> None:
    """Until so many calls without a message have come; the front in Rust keeps such calls to itself."""
    if server.settings.front == "grpcio":
        wait_until(lambda: server._listener.without_message >= calls)


def check(port: int, service: str = "") -> Any:
    with grpc.insecure_channel(f"127.0.0.1:{port}", OWN) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE
        )


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_hundreds_of_half_open_calls_hold_no_thread(store: Path, front: Any) -> None:
    settings = ServerSettings(store=store, port=0, threads=2, max_queue=4, front=front, message_seconds=PATIENCE)
    with (
        start(settings) as server,
        half_open(server.port, RANK, 300) as calls,
        RankingClient(f"127.0.0.1:{server.port}", seconds=PATIENCE, attempts=1) as client,
    ):
        wait_for(server, 300)
        threads = threading.active_count()
        for _ in range(20):
            assert client.rank(1, [100]).version == 1
        assert check(server.port).status == health_pb2.HealthCheckResponse.SERVING
        assert threading.active_count() < threads + 10
        assert not any(call.done() for call in calls)


def test_a_call_without_a_message_ends_after_a_bounded_time(store: Path) -> None:
    with (
        start(ServerSettings(store=store, port=0, message_seconds=0.8)) as server,
        half_open(server.port, RANK, 3) as calls,
    ):
        assert {call.code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert "did not come in time" in calls[0].details()
        wait_until(lambda: server._listener.without_message == 0)


def test_a_call_that_is_half_closed_without_a_message_is_told_so(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        silent: Any = channel.stream_unary(RANK, bytes, bytes)
        with pytest.raises(grpc.RpcError) as seen:
            silent(iter(()), timeout=PATIENCE)
    error: Any = seen.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("front", ["grpcio", "native"])
def test_open_streams_of_reflection_and_silent_checks_do_not_delay_health(store: Path, front: Any) -> None:
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(PATIENCE)
        yield from ()

    with (
        start(ServerSettings(store=store, port=0, front=front)) as server,
        half_open(server.port, f"{HEALTH}/Check", 20),
        grpc.insecure_channel(f"127.0.0.1:{server.port}", OWN) as channel,
    ):
        stream: Any = channel.stream_stream(REFLECTION, bytes, bytes)
        held = [stream(nothing()) for _ in range(6)]
        # Two more than there are threads for.
        wait_until(lambda: sum(call.is_active() for call in held) == 4)
        wait_for(server, 20)
        for _ in range(10):
            assert check(server.port).status == health_pb2.HealthCheckResponse.SERVING
        over.set()
        for call in held:
            call.cancel()


def test_a_watcher_sees_every_change_and_the_newest_status(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="tiny"))
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="absent"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        server.health.drain()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
        unknown.cancel()
    wait_until(lambda: not server.health._watchers)


def test_health_lists_who_serves_and_names_what_it_knows(server: RunningServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        statuses = stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE).statuses
        assert {name: each.status for name, each in statuses.items()} == dict.fromkeys(
            ("", "moerank.v1.RankingService", "inference.GRPCInferenceService", "tiny"), 1
        )
        with pytest.raises(grpc.RpcError) as seen:
            stub.Check(health_pb2.HealthCheckRequest(service="absent"), timeout=PATIENCE)
    error: Any = seen.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "'tiny'" in error.details()


def test_a_server_without_its_only_model_does_not_serve(store: Path) -> None:
    not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
    with start(ServerSettings(store=store, port=0, model_control=True)) as server:
        server.registry.unload("tiny")
        assert {check(server.port, name).status for name in ("", "tiny", "moerank.v1.RankingService")} == {not_serving}
        server.registry.load("tiny")
        assert check(server.port).status == health_pb2.HealthCheckResponse.SERVING
