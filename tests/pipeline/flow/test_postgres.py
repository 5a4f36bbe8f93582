"""The flow on a Prefect server whose database is PostgreSQL, as servers of more than one team have it."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.pipeline.flow.prefect_processes import background, reachable
from tests.pipeline.flow.shop import command, environment_of, wait_for
from tests.pipeline.tiny_project import write_project
from tests.ports import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"),
]


@pytest.fixture
def folder_of_database() -> Iterator[Path]:
    """A folder outside pytest's own, which every session of pytest closes to all other users."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def database(folder_of_database: Path) -> Iterator[str]:
    """The URL of an empty database of a server of our own; the server refuses to run as root."""
    folder, port = folder_of_database, str(free_port())
    as_user: list[str] = []
    if os.getuid() == 0:
        runuser = shutil.which("runuser")
        if runuser is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        as_user = [runuser, "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data, log = folder / "data", folder / "log"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    subprocess.run(
        [*as_user, str(PROGRAMS[-1] / "initdb"), "-D", str(data), "-U", "moerank", "--auth=trust"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    control = [*as_user, str(PROGRAMS[-1] / "pg_ctl"), "-D", str(data)]
    subprocess.run([*control, "-l", str(log), "-o", options, "-w", "-t", "120", "start"], cwd=folder, check=True)
    try:
        yield f"postgresql+asyncpg://moerank@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "fast", "stop"], cwd=folder, check=True, capture_output=True)


def test_a_run_is_kept_and_ends_well_on_postgresql(database: str, tmp_path: Path) -> None:
    folder, port = tmp_path / "shop", str(free_port())
    write_project(folder)
    api = f"http://127.0.0.1:{port}/api"
    environment = environment_of(folder) | {
        "PREFECT_API_URL": api,
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    log = tmp_path / "server.log"
    with background(["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"], environment, folder, log):
        wait_for(lambda: reachable(f"{api}/health"), 600, log)
        done = command(folder, environment, "run", "tiny.yaml", "--set", "train.epochs=1", "--json")
        assert done.returncode == 0, done.stderr
        assert Path(folder, json.loads(done.stdout)["bundle"]).is_dir()
        ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        assert int(httpx.post(f"{api}/flow_runs/count", json=ended).raise_for_status().text) == 1
