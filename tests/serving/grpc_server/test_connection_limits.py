"""Connections are closed when they are idle, never speak, or are too many, through either front; calls go on."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client.blocking_client import RankingClient
from serving.grpc_server import connection_limits, server_builder
from serving.grpc_server.accepted_sockets import AcceptedSockets
from serving.grpc_server.server import RunningServer, start
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.serving.held_calls import Held

IDLE_SECONDS = 0.5
FRONTS = ["grpcio", "native"]
OWN = [("grpc.use_local_subchannel_pool", 1)]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What opens a connection in HTTP/2, with empty settings."""


@contextmanager
def connections_to(server: RunningServer, count: int, say: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that say one thing and nothing more."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(count)]
        for each in made:
            each.settimeout(PATIENCE)
            each.sendall(say)
        yield made


def ended(connection: socket.socket) -> bool:
    """Reads until the other end closes, within the patience of the connection."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def has_ended(connection: socket.socket) -> bool:
    """Whether the other end has closed; what it said before is thrown away."""
    connection.settimeout(0.0)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@contextmanager
def accepted(server: RunningServer) -> Iterator[AcceptedSockets]:
    """The server's connections, as the kernel knows them."""
    sockets = AcceptedSockets(server.port)
    yield sockets
    sockets.close()


@pytest.mark.parametrize("front", FRONTS)
def test_a_watch_and_a_call_under_way_keep_their_connections(
    store: Path, monkeypatch: pytest.MonkeyPatch, front: Any
) -> None:
    answers: list[int] = []
    settings = ServerSettings(store=store, port=0, front=front, connection_idle_seconds=IDLE_SECONDS)
    with (
        start(settings) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}", OWN) as watching,
        RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client,
    ):
        watch = health_pb2_grpc.HealthStub(watching).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        held = Held(server, monkeypatch)
        asking = threading.Thread(target=lambda: answers.append(client.rank(1, [100]).version))
        asking.start()
        assert held.entered.acquire(timeout=PATIENCE)
        with connections_to(server, 1, PREFACE) as (idle,):
            # Control: one without a call ends meanwhile.
            assert ended(idle)
        time.sleep(IDLE_SECONDS)
        held.go.set()
        asking.join(PATIENCE)
        assert answers == [1]
        server.health.drain()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


@pytest.mark.parametrize("front", FRONTS)
def test_a_connection_that_never_speaks_is_closed(store: Path, monkeypatch: pytest.MonkeyPatch, front: Any) -> None:
    monkeypatch.setattr(connection_limits, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(connection_limits, "IDLE_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(server_builder, "HANDSHAKE_MS", 300)
    with (
        start(ServerSettings(store=store, port=0, front=front, connection_idle_seconds=0)) as server,
        connections_to(server, 2) as silent,
        connections_to(server, 1, PREFACE[:20]) as half,
    ):
        assert all(ended(each) for each in (*silent, *half))


@pytest.mark.parametrize("front", FRONTS)
def test_no_more_connections_than_allowed_stay_and_the_caller_is_one_of_them(store: Path, front: Any) -> None:
    settings = ServerSettings(store=store, port=0, front=front, max_connections=3)
    with (
        start(settings) as server,
        RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client,
        accepted(server) as sockets,
    ):
        assert client.rank(1, [100]).version == 1
        with connections_to(server, 4) as silent, connections_to(server, 4, PREFACE) as idle:
            # Two places are left beside the caller's.
            wait_until(lambda: sum(has_ended(each) for each in (*silent, *idle)) >= 6)
            for _ in range(20):
                assert client.rank(1, [100]).version == 1
            assert len(sockets.look()) <= settings.max_connections


def test_the_native_front_lets_a_caller_in_where_silent_connections_took_all_places(store: Path) -> None:
    with (
        start(ServerSettings(store=store, port=0, front="native", max_connections=3)) as server,
        connections_to(server, 8),
        RankingClient(f"127.0.0.1:{server.port}", attempts=1, seconds=PATIENCE) as client,
    ):
        assert client.rank(1, [100]).version == 1


def test_a_client_is_told_to_leave_before_an_idle_connection_ends(store: Path) -> None:
    settings = ServerSettings(store=store, port=0, front="native", connection_idle_seconds=IDLE_SECONDS)
    with start(settings) as server, connections_to(server, 1, PREFACE) as (connection,):
        received = bytearray()
        while block := connection.recv(4096):
            received += block
        assert received.endswith(connection_limits.GO_AWAY)


def test_looks_at_many_connections_cost_a_tenth_of_a_core_at_most(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    look = AcceptedSockets.look

    def costly(self: AcceptedSockets) -> Any:
        looks.append(time.monotonic())
        began = time.thread_time()
        while time.thread_time() < began + 0.1:
            pass
        return look(self)

    monkeypatch.setattr(AcceptedSockets, "look", costly)
    # More descriptors than that are open, so that each turn looks.
    with start(ServerSettings(store=store, port=0, front="native", max_connections=1)):
        wait_until(lambda: len(looks) >= 3)
    assert looks[2] - looks[1] >= 0.1 / connection_limits.MOST_OF_A_CORE


@pytest.mark.parametrize("front", FRONTS)
def test_a_client_that_was_idle_for_a_moment_may_be_told_to_leave(store: Path, front: Any) -> None:
    with (
        start(ServerSettings(store=store, port=0, front=front, connection_idle_seconds=0.001)) as server,
        connections_to(server, 1, PREFACE) as (connection,),
    ):
        assert ended(connection)


def test_a_descriptor_that_names_another_socket_by_now_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sockets = AcceptedSockets(listening.getsockname()[1])
        callers = [socket.create_connection(listening.getsockname()) for _ in range(2)]
        (first, _), (second, _) = listening.accept(), listening.accept()
        seen = {each.descriptor: each for each in sockets.look()}
        # The kernel gives the number of the one that closes to the next.
        gone = seen[first.fileno()]
        first.close()
        other = second.dup()
        assert other.fileno() == gone.descriptor
        sockets.act(gone, lambda pinned: pinned.shutdown(socket.SHUT_RDWR))
        callers[1].sendall(b"still here")
        assert second.recv(64) == b"still here"
        sockets.close()
        for each in (other, second, *callers):
            each.close()
