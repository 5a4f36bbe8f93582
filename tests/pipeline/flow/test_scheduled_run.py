"""Runs that a schedule starts, and nights that were missed, on a real Prefect server and worker."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pipeline.flow.prefect_processes import background, reachable
from tests.pipeline.flow.shop import ROOT, command, scheduling_environment, wait_for
from tests.pipeline.tiny_project import write_project
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DEPLOYMENTS = ROOT / "deploy" / "prefect.yaml"


@dataclass(frozen=True)
class Nights:
    """What a server, a worker and their log tell of the deployment's runs, and what `prefect deploy` printed."""

    folder: Path
    runs: list[dict[str, Any]]
    missed: set[str]
    worker: str
    filed: str


def runs_of(api: str) -> list[dict[str, Any]]:
    """All runs of the deployment that were due."""
    wanted = {"deployments": {"name": {"any_": ["tiny"]}}}
    found: list[dict[str, Any]] = httpx.post(f"{api}/flow_runs/filter", json=wanted).raise_for_status().json()
    return found


def has_fired(api: str, missed: set[str]) -> bool:
    """Whether a run that the schedule itself started has ended well, and of those missed nothing is left to do."""
    runs = runs_of(api)
    left = [run for run in runs if run["id"] in missed and run["state_type"] not in {"COMPLETED", "CANCELLED"}]
    return not left and any(run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in runs)


def miss_nights(api: str) -> set[str]:
    """Two runs that were due while no worker was there, as the scheduler leaves them."""
    deployment = httpx.get(f"{api}/deployments/name/moerank/tiny").raise_for_status().json()["id"]
    made = set()
    for days in (2, 1):
        due = datetime.now(UTC) - timedelta(days=days)
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        answer = httpx.post(f"{api}/deployments/{deployment}/create_flow_run", json={"state": state})
        made.add(answer.raise_for_status().json()["id"])
    return made


def make_pools(api: str) -> None:
    """The pools of deploy/prefect.yaml that `moerank schedule` does not make; the server checks the template."""
    template = json.loads((ROOT / "deploy" / "prefect_kubernetes.json").read_text(encoding="utf-8"))
    for kind, jobs in (("docker", {}), ("kubernetes", template)):
        pool: dict[str, object] = {"name": f"moerank-{kind}", "type": kind, "base_job_template": jobs}
        httpx.post(f"{api}/work_pools/", json=pool).raise_for_status()


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """A server that had no worker for two nights, then a worker that could run several at once."""
    home = tmp_path_factory.mktemp("nights")
    folder = home / "shop"
    write_project(folder)
    port = str(free_port())
    api = f"http://127.0.0.1:{port}/api"
    # Prefect keeps its runners' files in one directory of the temporary folder, whoever made that first.
    environment = scheduling_environment(folder, api) | {"TMPDIR": str(home)}
    server, worker = home / "server.log", home / "worker.log"
    start = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    work = ["worker", "start", "--pool", "moerank", "--limit", "3"]
    with background(start, environment, folder, server):
        wait_for(lambda: reachable(f"{api}/health"), 300, server)
        done = command(folder, environment, "schedule", "tiny.yaml", "--cron", "* * * * *", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["deployment"] == "moerank/tiny"
        missed = miss_nights(api)
        with background(work, environment, folder, worker):
            make_pools(api)
            filed = ["deploy", "--all", "--prefect-file", str(DEPLOYMENTS)]
            line = [sys.executable, "-m", "prefect", "--no-prompt", *filed]
            made = subprocess.run(line, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
            wait_for(lambda: has_fired(api, missed), 900, server, worker)
            runs = runs_of(api)
    return Nights(folder, runs, missed, worker.read_text(encoding="utf-8"), made.stdout + made.stderr)


def test_a_scheduled_run_really_fires_from_a_started_server_and_worker(nights: Nights) -> None:
    assert [run for run in nights.runs if run["auto_scheduled"] and run["state_type"] == "COMPLETED"]
    assert "train: epoch 2" in nights.worker


def test_the_deployments_of_the_file_are_taken_by_a_server(nights: Nights) -> None:
    for deployment in ("movielens", "movielens-docker", "movielens-kubernetes"):
        assert f"moerank/{deployment}'" in nights.filed


def test_of_several_nights_that_are_due_at_once_one_runs_and_the_others_are_left_out(nights: Nights) -> None:
    ran = min((run for run in nights.runs if run["state_type"] == "COMPLETED"), key=lambda run: run["start_time"])
    states = [run["state_type"] for run in nights.runs if run["id"] in nights.missed | {ran["id"]}]
    assert states.count("COMPLETED") == 1
    assert states.count("CANCELLED") == len(states) - 1 >= 1


def test_two_runs_of_one_deployment_never_train_at_once(nights: Nights) -> None:
    ran = sorted(
        (run["start_time"], run["end_time"]) for run in nights.runs if run["state_type"] in {"COMPLETED", "RUNNING"}
    )
    assert all(end is not None and end <= begin for (_, end), (begin, _) in pairwise(ran))
    # A night that was made up for, or comes a minute later, has no newer rows: the version stays the only one.
    store = nights.folder / "runs" / "tiny" / "store" / "tiny"
    assert [path.name for path in store.glob("[0-9]*")] == ["1"]
