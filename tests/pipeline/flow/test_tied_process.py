"""The private Prefect server's process ends with the command, also when that is killed."""

import subprocess
import sys
from pathlib import Path

from pipeline.flow.tied_process import TIED

ROOT = Path(__file__).resolve().parents[3]
STARTS = """
import os, subprocess, sys
subprocess.Popen([*sys.argv[1:4], str(os.getpid()), *sys.argv[4:]])
os.kill(os.getpid(), 9)
"""


def test_it_ends_when_its_parent_was_killed() -> None:
    server = [sys.executable, "-m", TIED, "http.server", "0", "--bind", "127.0.0.1"]
    parent = subprocess.Popen(
        [sys.executable, "-c", STARTS, *server], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.read()  # ends when the server, which inherited it, has ended
    assert parent.returncode == -9


def test_the_module_gets_its_arguments() -> None:
    run = [
        sys.executable,
        "-c",
        "import os, subprocess, sys; sys.exit(subprocess.call([*sys.argv[1:4], str(os.getpid()), *sys.argv[4:]]))",
    ]
    done = subprocess.run(
        [*run, sys.executable, "-m", TIED, "json.tool", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "json" in done.stdout
