"""A run that nothing but its schedule starts, on a real Prefect server and worker."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.pipeline.flow.prefect_processes import background, reachable
from tests.pipeline.flow.shop import ROOT, command, scheduling_environment, wait_for
from tests.pipeline.tiny_project import write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEPLOYMENTS = ROOT / "deploy" / "prefect.yaml"


def completed_runs(api: str) -> int:
    """How many runs of the deployment have ended well; nothing but its schedule starts any."""
    wanted = {"deployments": {"name": {"any_": ["tiny"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    return int(httpx.post(f"{api}/flow_runs/count", json=wanted).raise_for_status().text)


def make_pools(api: str) -> None:
    """The pools of deploy/prefect.yaml that `moerank schedule` does not make; the server checks the template."""
    template = json.loads((ROOT / "deploy" / "prefect_kubernetes.json").read_text(encoding="utf-8"))
    for kind, jobs in (("docker", {}), ("kubernetes", template)):
        pool: dict[str, object] = {"name": f"moerank-{kind}", "type": kind, "base_job_template": jobs}
        httpx.post(f"{api}/work_pools/", json=pool).raise_for_status()


def test_a_scheduled_run_really_fires_from_a_started_server_and_worker(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_project(folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    api = f"http://127.0.0.1:{port}/api"
    # Prefect keeps its runners' files in one directory of the temporary folder, whoever made that first.
    environment = scheduling_environment(folder, api) | {"TMPDIR": str(tmp_path)}
    server, worker = tmp_path / "server.log", tmp_path / "worker.log"
    start = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    work = ["worker", "start", "--pool", "moerank", "--limit", "1"]
    with background(start, environment, folder, server):
        wait_for(lambda: reachable(f"{api}/health"), 300, server)
        done = command(folder, environment, "schedule", "tiny.yaml", "--cron", "* * * * *", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["deployment"] == "moerank/tiny"
        with background(work, environment, folder, worker):
            make_pools(api)
            filed = ["deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
            line = [sys.executable, "-m", "prefect", "--no-prompt", *filed]
            made = subprocess.run(line, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
            for deployment in ("movielens", "movielens-docker", "movielens-kubernetes"):
                assert f"moerank/{deployment}'" in made.stdout, made.stdout + made.stderr
            wait_for(lambda: completed_runs(api) > 0, 900, server, worker)
    assert "train: epoch 2" in worker.read_text(encoding="utf-8")
