"""The second flow: days judged as they were served, by the command, and by a real Prefect server and worker."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pipeline.project.project_config import write_config
from tests.pipeline.flow.prefect_processes import background, reachable
from tests.pipeline.flow.shop import TO_FILE, Shop, command, environment_of, scheduling_environment, wait_for
from tests.pipeline.two_versions import LAST, make_two_versions
from tests.ports import free_port

pytestmark = pytest.mark.slow
ALARM = "monitor.rules=[like.auc >= 0.999]"
# Judges a day with a rule that nothing passes, and a notification block that writes to a file.
ALARM_RUN = f"""
import json, sys
from datetime import date
from pathlib import Path
from pipeline.flow.prefect_server import prefect_api

with prefect_api(Path("prefect")) as ready:
    from prefect.client.orchestration import get_client
    from pipeline.flow.evaluation_flow import evaluate_served
{TO_FILE}    day = date.fromisoformat(sys.argv[2])
    state = evaluate_served(Path("shop.yaml"), [sys.argv[3]], day=day, notify=["tofile/here"], return_state=True)
    with get_client(sync_client=True) as client:
        artifacts = {{}}
        for found in client.read_artifacts():  # of all runs so far, in no order
            artifacts[found.key] = artifacts.get(found.key, "") + found.data
    print(json.dumps([state.name, state.type.value, artifacts]))
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with two versions, the second current from noon of the last day on, and its YAML file."""
    folder = tmp_path_factory.mktemp("served")
    world = make_two_versions(folder)
    write_config(world.config, folder / "shop.yaml")
    return Shop(folder, environment_of(folder), {})


def test_a_day_is_judged_by_the_command_and_an_alarm_ends_with_code_4(served: Shop) -> None:
    done = command(served.folder, served.environment, "monitor", "shop.yaml", "--day", str(LAST), "--json")
    assert done.returncode == 0, done.stderr
    (day,) = json.loads(done.stdout)["days"]
    assert set(day["versions"]) == {"1", "2"}
    assert Path(json.loads(done.stdout)["page"]).is_file()
    alarm = command(served.folder, served.environment, "monitor", "shop.yaml", "--day", str(LAST), "--set", ALARM)
    assert alarm.returncode == 4, alarm.stderr
    assert "but >= 0.999 is asked for" in alarm.stderr
    assert "Traceback" not in alarm.stderr


def test_an_alarm_is_a_state_of_its_own_that_tells_and_keeps_artifacts(served: Shop) -> None:
    told = served.folder / "told.txt"
    line = [sys.executable, "-c", ALARM_RUN, str(told), str(LAST), ALARM]
    done = subprocess.run(line, check=False, capture_output=True, text=True, cwd=served.folder, env=served.environment)
    assert done.returncode == 0, done.stderr
    name, kind, artifacts = json.loads(done.stdout.splitlines()[-1])
    assert (name, kind) == ("Alarm", "COMPLETED")
    assert told.read_text().startswith(f"moerank: shop-served-{LAST} Alarm\nAlarm: shop on {LAST}: like.auc is ")
    assert "**ALARM**" in artifacts["alarm-shop"]
    assert f"| {LAST} | like |" in artifacts["days-shop"]


@pytest.mark.long
def test_a_scheduled_evaluation_really_fires_from_a_started_server_and_worker(served: Shop, tmp_path: Path) -> None:
    port = str(free_port())
    api = f"http://127.0.0.1:{port}/api"
    environment = scheduling_environment(served.folder, api) | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "TMPDIR": str(tmp_path),
    }
    server, worker = tmp_path / "server.log", tmp_path / "worker.log"
    start = ["server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    back = str((datetime.now(UTC).date() - LAST).days)
    words = ["schedule-evaluation", "shop.yaml", "--cron", "* * * * *", "--days-back", back, "--set", ALARM, "--json"]
    with background(start, environment, served.folder, server):
        wait_for(lambda: reachable(f"{api}/health"), 180, server)
        done = command(served.folder, environment, *words)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["deployment"] == "moerank-evaluation/shop"
        work = ["worker", "start", "--pool", "moerank", "--limit", "1"]
        with background(work, environment, served.folder, worker):
            wait_for(lambda: alarms(api) > 0, 300, server, worker)
    assert "served: version 2: 2024-03-06 12:00 to 2024-03-07 00:00 UTC" in worker.read_text(encoding="utf-8")


def alarms(api: str) -> int:
    """How many runs of the deployment have ended in the state "Alarm"; nothing but its schedule starts any."""
    wanted = {"deployments": {"name": {"any_": ["shop"]}}, "flow_runs": {"state": {"name": {"any_": ["Alarm"]}}}}
    return int(httpx.post(f"{api}/flow_runs/count", json=wanted).raise_for_status().text)
