"""A test that is ended by its timeout, or with pytest itself, leaves no server behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.patience import wait_until

ROOT = Path(__file__).resolve().parent.parent
# A program that starts a server in a session of its own, as `moerank run` does, and is then killed with the test. The
# test's time is over as soon as the server is there, which no timeout in seconds would hit on every machine.
WAITS = """
import pathlib, signal, subprocess, sys, threading, time
SERVES = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(600)"
SERVER = [sys.executable, "-c", SERVES, "{mark}"]
CODE = f"import subprocess, time; subprocess.Popen({SERVER!r}, start_new_session=True); time.sleep(600)"

def end_time_once_it_is_there():
    while not pathlib.Path("{mark}").exists():
        time.sleep(0.01)
    if signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        signal.setitimer(signal.ITIMER_REAL, 0.01)

def test_waits():
    threading.Thread(target=end_time_once_it_is_there).start()
    subprocess.run([sys.executable, "-c", CODE], check=True)
"""


PLUGIN = ("-p", "tests.leftover_processes")
# Sets pytest-timeout's alarm, which the test then brings forward.
TIMEOUT = ("--timeout", "500")


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


def test_a_timeout_ends_what_the_test_started(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with started(tmp_path, mark, *PLUGIN, *TIMEOUT) as session:
        assert session.wait() == pytest.ExitCode.TESTS_FAILED
    assert Path(mark).exists()
    assert alive(mark) == []


def test_control_without_the_plugin_a_timeout_leaves_the_server_behind(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with started(tmp_path, mark, *TIMEOUT) as session:
        assert session.wait() == pytest.ExitCode.TESTS_FAILED
    left = alive(mark)
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert len(left) == 1


def test_the_end_of_pytest_ends_what_its_tests_started(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    with started(tmp_path, mark, *PLUGIN) as session:
        wait_until(lambda: len(alive(mark)) == 1)
        session.send_signal(signal.SIGKILL)
    wait_until(lambda: not alive(mark))
