"""Idle connections up to the limit of open files: callers who are connected are answered, idle ones are closed."""

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client.blocking_client import RankingClient
from tests.faults.load import serving
from tests.patience import PATIENCE

LIMIT = 128
IDLE = 300
# Less than the two minutes after which gRPC itself closes those who never speak: what lets in is our own setting.
LET_IN_SECONDS = 60
CODE = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
sys.argv[0] = "serving"
runpy.run_module("serving", run_name="__main__")
"""


@pytest.mark.slow
def test_idle_connections_beyond_the_limit_of_open_files_stall_nobody(store: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    with (
        serving(store, "--connection-idle-seconds", "2", program=("-c", CODE)) as served,
        RankingClient(f"127.0.0.1:{served.port}", seconds=PATIENCE, attempts=1) as connected,
        ExitStack() as stack,
    ):
        connected.rank(1, [100])
        for _ in range(IDLE):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(0.0)
            connection.connect_ex(("127.0.0.1", served.port))
        for _ in range(100):
            assert connected.rank(1, [100]).version == 1
        # Those who never said what they speak are closed, and so newcomers are let in.
        with RankingClient(f"127.0.0.1:{served.port}", seconds=LET_IN_SECONDS, attempts=5) as newcomer:
            newcomer.wait_until_ready(LET_IN_SECONDS)
            assert newcomer.rank(1, [100]).version == 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
