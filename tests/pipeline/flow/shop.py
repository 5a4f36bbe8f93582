"""The tiny project as commands meet it: a folder, an environment, and what the first run made."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.covered_program import program
from tests.prefect_home import prefect_home

ROOT = Path(__file__).resolve().parents[3]
# Registers a notification block that writes to the file of the first argument, within a `with prefect_api(...)`.
TO_FILE = """
    from prefect.blocks.abstract import NotificationBlock

    class ToFile(NotificationBlock):
        path: str

        def notify(self, body, subject=None):
            Path(self.path).write_text(f"{subject}\\n{body}")

    ready()
    ToFile.register_type_and_schema()
    ToFile(path=sys.argv[1]).save("here", overwrite=True)
"""


@dataclass(frozen=True)
class Shop:
    """A folder with the tiny project, the environment of its commands, and what the first run answered."""

    folder: Path
    environment: dict[str, str]
    made: dict[str, Any]


def command(folder: Path, environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    line = [*program("pipeline"), *words]
    return subprocess.run(line, check=False, capture_output=True, text=True, cwd=folder, env=environment)


def environment_of(folder: Path) -> dict[str, str]:
    """An environment in which commands keep Prefect's files in the folder."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": prefect_home(folder / "prefect"),
    }


def scheduling_environment(folder: Path, api: str) -> dict[str, str]:
    """Commands, a server and a worker that look for due runs every two seconds."""
    return environment_of(folder) | {
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }


def wait_for(found: Callable[[], bool], seconds: float, *logs: Path) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            pytest.fail("\n".join(["not in time", *(log.read_text(encoding="utf-8") for log in logs)]))
        time.sleep(0.5)
