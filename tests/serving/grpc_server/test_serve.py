"""The server as a process: it starts from flags, answers, drains on a signal, and refuses in one line."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client.blocking_client import RankingClient
from serving.client.client_request import build_request
from serving.generate import ROOT
from tests.patience import PATIENCE, wait_until


@contextmanager
def served(store: Path, *flags: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    command = [sys.executable, "-m", "serving", str(store), "--port", "0", "--poll-seconds", "0.1", *flags]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        port = next(int(m[1]) for line in child.stderr if (m := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
        yield child, port
        child.kill()


@pytest.fixture
def process(store: Path) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    with served(store) as started:
        yield started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_success(
    process: tuple["subprocess.Popen[str]", int], number: signal.Signals
) -> None:
    child, port = process
    with RankingClient(f"127.0.0.1:{port}", seconds=PATIENCE) as client:
        assert client.rank(1, [100, 101]).version == 1
    child.send_signal(number)
    assert child.wait(PATIENCE) == 0


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this scheduling policy")
def test_its_threads_do_not_interrupt_each_other(process: tuple["subprocess.Popen[str]", int]) -> None:
    child, _ = process
    threads = list(Path(f"/proc/{child.pid}/task").iterdir())
    moving_bytes = [int(t.name) for t in threads if (t / "comm").read_text().startswith("event_engine")]
    assert moving_bytes
    for thread in (child.pid, *moving_bytes):
        assert os.sched_getscheduler(thread) == os.SCHED_BATCH


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this scheduling policy")
def test_a_policy_that_was_chosen_for_the_process_stays() -> None:
    code = (
        "import os; from serving.grpc_server.thread_scheduling import compute_bound; "
        "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); compute_bound(); "
        "assert os.sched_getscheduler(0) == os.SCHED_IDLE"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


ANSWERED, DRAIN_SECONDS = 10, 4


def ended_under_load(store: Path, drain_seconds: int, *flags: str) -> tuple[int, list[grpc.RpcError]]:
    """Calls that were answered after SIGTERM by a server under load, and the errors of those that were not.

    The callers know nothing of health; ours would leave a server that drains at once. Where it drains they end in time;
    where it does not they go on until one fails.
    """
    answered: list[float] = []
    failed: list[grpc.RpcError] = []
    body = build_request(user=1, items=range(100, 120)).SerializeToString()
    over = threading.Event()

    def ask(port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            rank: Any = channel.unary_unary("/moerank.v1.RankingService/Rank", bytes, bytes)
            while not over.is_set():
                try:
                    rank(body, timeout=PATIENCE)
                except grpc.RpcError as error:
                    failed.append(error)
                else:
                    answered.append(time.monotonic())

    with served(store, "--drain-seconds", str(drain_seconds), *flags) as (child, port):
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answered) >= 50)
        child.send_signal(signal.SIGTERM)
        signalled = time.monotonic()

        def since() -> int:
            # An answer that was under way when the signal came proves nothing.
            return sum(moment > signalled + 0.05 for moment in answered)

        def ended() -> bool:
            drained = since() >= ANSWERED or time.monotonic() > signalled + drain_seconds - 1
            return bool(failed) or (drain_seconds > 0 and drained)

        wait_until(ended)
        over.set()
        for thread in threads:
            thread.join()
        assert child.wait(PATIENCE) == 0
    return since(), failed


def test_no_call_fails_while_the_server_drains(store: Path) -> None:
    answered, failed = ended_under_load(store, DRAIN_SECONDS)
    assert failed == []
    assert answered >= ANSWERED


def test_control_without_draining_calls_fail(store: Path) -> None:
    _, failed = ended_under_load(store, 0, "--grace-seconds", "0")
    assert failed


def test_wrong_flags_are_one_message_and_exit_code_two() -> None:
    command = [sys.executable, "-m", "serving", "--port", "x", "--threads", "0"]
    environment = {**os.environ, "MOERANK_DEVICE": "tpu"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    for name in ("MOERANK_STORE", "--port", "--threads", "--device"):
        assert name in run.stderr


def test_a_store_that_does_not_exist_is_one_message_and_exit_code_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", str(tmp_path / "absent")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "no model store at" in run.stderr
