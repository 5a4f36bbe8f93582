"""Silent connections up to the limit of open files: the server keeps files for itself and lets newcomers in again."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client.blocking_client import RankingClient
from tests.faults.conftest import LONG, Front
from tests.faults.load import BODY, RANK, Served, serving
from tests.patience import PATIENCE, wait_until

LIMIT = 128
SILENT = 300
# gRPC itself closes those who never speak after two minutes: within one it is our own setting that lets newcomers in.
LET_IN_SECONDS = 60
PROGRAM = f"""
import resource, runpy, sys
from serving.grpc_server import connection_limits, server_builder
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
CARELESS
sys.argv[0] = "serving"
runpy.run_module("serving", run_name="__main__")
"""


@contextmanager
def crowded(store: Path, front: Front, careless: str = "") -> Iterator[tuple[Served, RankingClient]]:
    """A server with few files, one caller who is connected, and many connections that never say what they speak."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with (
        serving(store, "--front", front, program=("-c", PROGRAM.replace("CARELESS", careless))) as served,
        RankingClient(f"127.0.0.1:{served.port}", seconds=PATIENCE, attempts=1) as connected,
        ExitStack() as stack,
    ):
        connected.rank(1, [100])
        for _ in range(SILENT):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(0.0)
            connection.connect_ex(("127.0.0.1", served.port))
        yield served, connected
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lets_in(served: Served, seconds: float) -> bool:
    """Whether someone new is answered, on a connection of their own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel: Any
    with grpc.insecure_channel(f"127.0.0.1:{served.port}", options) as channel:
        try:
            channel.unary_unary(RANK)(BODY, timeout=seconds, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return True


def files_left(served: Served, connected: RankingClient) -> bool:
    """Whether the server keeps files for itself while the caller who was there before is answered."""
    open_files = [served.process.num_fds()]
    for _ in range(100):
        assert connected.rank(1, [100]).version == 1
        open_files.append(served.process.num_fds())
        time.sleep(0.01)
    return max(open_files) < LIMIT - 16


@pytest.mark.slow
def test_silent_connections_beyond_the_limit_of_open_files_stall_nobody(store: Path) -> None:
    with crowded(store, "grpcio") as (served, connected):
        # Control: the silent ones are really in the way.
        assert not lets_in(served, 1.0)
        assert files_left(served, connected)
        assert lets_in(served, LET_IN_SECONDS)


@pytest.mark.slow
def test_the_native_front_closes_silent_connections_after_it_has_taken_them(store: Path) -> None:
    with crowded(store, "native") as (served, connected):
        # It takes as many as there are files, and pauses where there are none; a look later most are closed.
        wait_until(lambda: files_left(served, connected))
        assert lets_in(served, LET_IN_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("front", "careless"),
    [
        ("grpcio", "server_builder.connections_that_fit = lambda: 100_000"),
        *([("native", "connection_limits.ConnectionLimits.start = lambda _: None")] if LONG else []),
    ],
)
def test_control_a_server_without_a_limit_of_connections_has_no_file_left(
    store: Path, front: Front, careless: str
) -> None:
    with crowded(store, front, careless) as (served, _):
        wait_until(lambda: served.process.num_fds() >= LIMIT)
