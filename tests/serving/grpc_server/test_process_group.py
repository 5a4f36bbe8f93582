"""Several processes on one port: all answer, the dead are replaced, versions change in step, nothing stays behind."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from contract.errors import ConfigError, ModelNotFoundError, MoerankError, UnavailableError
from serving.client.blocking_client import RankingClient
from serving.client.client_request import build_request
from serving.client.load import LoadPlan, run_load
from serving.generate import ROOT
from serving.grpc_server.process_group import ProcessGroup, cores_of
from serving.grpc_server.server_settings import ServerSettings
from tests.patience import PATIENCE, wait_until
from tests.tiny_bundle import publish_tiny

FRONTS = ["grpcio", "native"]


def settings(store: Path, **changes: Any) -> ServerSettings:
    flags = {"store": store, "port": 0, "processes": 2, "poll_seconds": 0.1, "metrics_port": 0, "threads": 1}
    return ServerSettings.model_validate(flags | changes)


@pytest.fixture(params=FRONTS)
def group(request: pytest.FixtureRequest, store: Path) -> Iterator[ProcessGroup]:
    with ProcessGroup(settings(store, front=request.param, pin_cores=True)) as started:
        yield started


def kept_to(group: ProcessGroup) -> list[set[int]]:
    """The cores that each process's threads keep to."""
    return [
        set().union(*(os.sched_getaffinity(thread.id) for thread in psutil.Process(pid).threads()))
        for pid in group.pids
    ]


def versions(port: int, connections: int = 16) -> list[int]:
    """What so many connections, each a new one, are answered by."""
    found = []
    for _ in range(connections):
        with RankingClient(f"127.0.0.1:{port}", seconds=PATIENCE) as client:
            found.append(client.rank(1, [100, 101]).version)
    return found


def answered_within(port: int, seconds: float) -> list[int]:
    """The versions of answers of new connections, as long as it takes until there is one; a frozen process has none."""
    found: list[int] = []

    def asked() -> bool:
        with RankingClient(f"127.0.0.1:{port}", seconds=seconds, attempts=1) as client, suppress(MoerankError):
            found.append(client.rank(1, [100, 101]).version)
        return bool(found)

    wait_until(asked)
    return found


def counts(group: ProcessGroup) -> dict[str, float]:
    assert group.metrics is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{group.metrics.port}/metrics", timeout=PATIENCE) as page:
        lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name.partition("{")[0]: float(value) for name, value in lines}


def answered_by(group: ProcessGroup) -> list[float]:
    found = [
        re.search(r"^nv_inference_request_success_total\{.*\} (.*)$", w.page, re.MULTILINE) for w in group._workers
    ]
    return [float(each[1]) if each else 0.0 for each in found]


def test_both_processes_answer_and_one_page_adds_their_counts_up(group: ProcessGroup) -> None:
    # Clients of one program, all at once.
    with ExitStack() as opened:
        clients = [opened.enter_context(RankingClient(f"127.0.0.1:{group.port}", seconds=PATIENCE)) for _ in range(32)]
        assert {client.rank(1, [100]).version for client in clients} == {1}
    own = sorted(os.sched_getaffinity(0))
    assert kept_to(group) == [set(cores_of(place, 2, own)) for place in range(2)]
    found = counts(group)
    assert found["nv_inference_request_success_total"] == 32
    assert sum(answered_by(group)) == 32
    assert min(answered_by(group)) > 0
    assert (found["moerank_processes"], found["moerank_model_version"]) == (2, 1)
    # The same group, for starting one takes seconds: one client reaches both over several connections.
    before = answered_by(group)
    with RankingClient(f"127.0.0.1:{group.port}", seconds=PATIENCE, connections=24) as client:
        for _ in range(48):
            client.rank(1, [100])
    wait_until(lambda: counts(group)["nv_inference_request_success_total"] == 80)
    assert all(after > earlier for earlier, after in zip(before, answered_by(group), strict=True))
    # And so do the callers of a load test.
    before = answered_by(group)
    body = build_request(user=1, items=[100, 101]).SerializeToString()
    run_load(LoadPlan(f"127.0.0.1:{group.port}", [body], callers=24, connections=24, seconds=0.5, timeout=PATIENCE))
    wait_until(lambda: counts(group)["nv_inference_request_success_total"] > 80)
    assert all(after > earlier for earlier, after in zip(before, answered_by(group), strict=True))


def test_a_killed_process_is_replaced_and_no_count_falls(group: ProcessGroup) -> None:
    versions(group.port, 16)
    assert counts(group)["nv_inference_request_success_total"] == 16
    dead = group.pids[0]
    os.kill(dead, signal.SIGKILL)
    wait_until(
        lambda: len(group.pids) == 2 and dead not in group.pids and all(w.ready.is_set() for w in group._workers)
    )
    assert versions(group.port, 32) == [1] * 32
    # The page is kept for a second.
    wait_until(lambda: counts(group)["nv_inference_request_success_total"] == 48)
    assert counts(group)["moerank_process_restarts_total"] == 1
    assert min(answered_by(group)) > 0


def test_a_new_version_answers_in_all_processes_from_one_moment_on(
    group: ProcessGroup, store: Path, tmp_path: Path
) -> None:
    assert set(versions(group.port)) == {1}
    late = psutil.Process(group.pids[0])
    # One of them cannot load it yet: the other has, and does not answer with it.
    late.suspend()
    try:
        publish_tiny(store, tmp_path / "second", seed=1)
        wait_until(lambda: any(group.pids[1] in pids for _, pids in group._swaps.values()))
        assert set(answered_within(group.port, seconds=2.0)) == {1}
    finally:
        late.resume()
    wait_until(lambda: set(versions(group.port)) == {2})


def test_what_keeps_a_process_from_starting_is_said_and_none_is_left(tmp_path: Path) -> None:
    before = psutil.Process().children()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="no model to serve"):
        ProcessGroup(settings(tmp_path / "empty"))
    assert psutil.Process().children() == before


def test_another_server_on_the_port_is_not_joined(group: ProcessGroup, store: Path) -> None:
    with pytest.raises(UnavailableError, match="another process may use the port"):
        ProcessGroup(settings(store, port=group.port))


def test_loading_and_unloading_by_callers_is_refused_with_several_processes(store: Path) -> None:
    with pytest.raises(ConfigError, match="--model-control reaches one process of several"):
        ServerSettings.read({"store": store, "processes": 2, "model_control": True})


def started(store: Path) -> tuple["subprocess.Popen[str]", int, list[psutil.Process]]:
    command = [sys.executable, "-m", "serving", str(store), "--port", "0", "--processes", "2"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stderr is not None
    port = next(int(m[1]) for line in child.stderr if (m := re.search(r"processes on 127\.0\.0\.1:(\d+)", line)))
    return child, port, psutil.Process(child.pid).children(recursive=True)


@pytest.mark.parametrize("how", ["sigterm", "ctrl-c", "kill -9 of the parent"])
def test_nothing_stays_behind(how: str, store: Path) -> None:
    child, port, processes = started(store)
    assert len(processes) == 2
    assert versions(port, 4) == [1] * 4
    if how == "ctrl-c":
        os.killpg(child.pid, signal.SIGINT)
    else:
        child.send_signal(signal.SIGTERM if how == "sigterm" else signal.SIGKILL)
    _, left = psutil.wait_procs(processes, timeout=PATIENCE)
    assert left == []
    assert child.wait(PATIENCE) == (-signal.SIGKILL if how.startswith("kill") else 0)
    if child.stderr is not None:
        child.stderr.close()
