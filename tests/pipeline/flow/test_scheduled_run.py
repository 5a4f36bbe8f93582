"""A run that nothing but its schedule starts, on a real Prefect server and worker."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE
from tests.pipeline.flow.shop import ROOT, command, environment_of, wait_for
from tests.pipeline.tiny_project import write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEPLOYMENTS = ROOT / "deploy" / "prefect.yaml"


@contextmanager
def background(words: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[None]:
    """A Prefect command with all its children, ended when the block ends."""
    with log.open("wb") as out:
        line = [sys.executable, "-m", "prefect", *words]
        process = subprocess.Popen(line, stdout=out, stderr=out, cwd=folder, env=environment, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=PATIENCE)


def completed_runs(api: str) -> int:
    """How many runs of the deployment have ended well; nothing but its schedule starts any."""
    wanted = {"deployments": {"name": {"any_": ["tiny"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(httpx.post(f"{api}/flow_runs/count", json=wanted).raise_for_status().text)


def test_a_scheduled_run_really_fires_from_a_started_server_and_worker(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_project(folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    api = f"http://127.0.0.1:{port}/api"
    environment = environment_of(folder) | {
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # Prefect keeps its runners' files in one directory of the temporary folder, whoever made that first.
        "TMPDIR": str(tmp_path),
    }
    server, worker = tmp_path / "server.log", tmp_path / "worker.log"
    start = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    work = ["worker", "start", "--pool", "moerank", "--limit", "1"]
    with background(start, environment, folder, server):
        wait_for(lambda: reachable(f"{api}/health"), 300, server)
        done = command(folder, environment, "schedule", "tiny.yaml", "--cron", "* * * * *", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["deployment"] == "moerank/tiny"
        with background(work, environment, folder, worker):
            filed = ["deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
            line = [sys.executable, "-m", "prefect", "--no-prompt", *filed]
            made = subprocess.run(line, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
            assert "moerank/movielens" in made.stdout, made.stdout + made.stderr
            wait_for(lambda: completed_runs(api) > 0, 900, server, worker)
    assert "train: epoch 2" in worker.read_text(encoding="utf-8")


def reachable(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False
