"""A test that is ended by its timeout, or with pytest itself, leaves no server behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
# A program that starts a server in a session of its own, as `moerank run` does, and is then killed with the test.
WAITS = """
import subprocess, sys
SERVER = [sys.executable, "-c", "import time; time.sleep(600)", "{mark}"]
CODE = f"import subprocess, time; subprocess.Popen({SERVER!r}, start_new_session=True); time.sleep(600)"

def test_waits():
    subprocess.run([sys.executable, "-c", CODE], check=True)
"""


PLUGIN = ("-p", "tests.leftover_processes")
# Time enough to start three interpreters on a busy machine.
TIMEOUT = ("--timeout", "15")


def started(tmp_path: Path, mark: str, *options: str) -> "subprocess.Popen[bytes]":
    (tmp_path / "test_waits.py").write_text(WAITS.replace("{mark}", mark), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(tmp_path)]
    return subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )


def alive(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            # The last argument: the program that starts the server has the mark inside its code.
            if process.cmdline()[-1:] == [mark]:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(count: int, mark: str) -> None:
    while len(alive(mark)) != count:
        time.sleep(0.1)


def test_a_timeout_ends_what_the_test_started(tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-timeout"
    with started(tmp_path, mark, *PLUGIN, *TIMEOUT) as session:
        wait_for(1, mark)
        assert session.wait() == pytest.ExitCode.TESTS_FAILED
    assert alive(mark) == []


def test_control_without_the_plugin_a_timeout_leaves_the_server_behind(tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-control"
    with started(tmp_path, mark, *TIMEOUT) as session:
        wait_for(1, mark)
        assert session.wait() == pytest.ExitCode.TESTS_FAILED
    left = alive(mark)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert len(left) == 1


def test_the_end_of_pytest_ends_what_its_tests_started(tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-killed"
    with started(tmp_path, mark, *PLUGIN) as session:
        wait_for(1, mark)
        session.send_signal(signal.SIGKILL)
    wait_for(0, mark)
