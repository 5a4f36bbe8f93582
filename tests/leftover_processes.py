"""No process that a test starts outlives it: a pytest plugin.

A test that its timeout ends kills the program it waits for, but not what that program started. So pytest adopts orphans
(PR_SET_CHILD_SUBREAPER) and ends them after a test that failed and at the end of the session. If pytest itself is
killed, a watchdog ends every process that inherited its mark.
"""

import ctypes
import gc
import multiprocessing
import os
import subprocess
import sys
import uuid
from collections.abc import Generator, Iterable, Iterator

import psutil
import pytest

from tests.patience import PATIENCE

_SUBREAPER = 36
_FAILED = pytest.StashKey[bool]()
_MARK = "TEST_SESSION_MARK"
_WATCHDOG = """
import sys, psutil
sys.stdin.read()
for process in psutil.process_iter():
    try:
        if process.environ().get(sys.argv[1]) == sys.argv[2] and process.pid != psutil.Process().pid:
            process.kill()
    except psutil.Error:
        pass
"""


@pytest.fixture(scope="session", autouse=True)
def _no_leftover_processes() -> Iterator[None]:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    mark = os.environ[_MARK] = uuid.uuid4().hex
    # In a session of its own, so that a ctrl-c that ends pytest does not end it first.
    watchdog = subprocess.Popen(
        [sys.executable, "-c", _WATCHDOG, _MARK, mark], stdin=subprocess.PIPE, start_new_session=True
    )
    yield
    end(process for process in psutil.Process().children(recursive=True) if process.pid != watchdog.pid)
    watchdog.kill()
    watchdog.communicate()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    failed = item.stash.get(_FAILED, report.failed) or report.failed
    item.stash[_FAILED] = failed
    if report.when == "teardown" and failed:
        end(orphans())
    return report


def orphans() -> list[psutil.Process]:
    """Processes that pytest adopted: its children that none of its own objects stands for."""
    # By its type alone: isinstance would ask objects that pretend to be others, and some of them warn.
    own: set[int | None] = {thing.pid for thing in gc.get_objects() if issubclass(type(thing), subprocess.Popen)}
    own.update(child.pid for child in multiprocessing.active_children())
    adopted = [child for child in psutil.Process().children() if child.pid not in own]
    return adopted + [below for child in adopted for below in child.children(recursive=True)]


def end(processes: Iterable[psutil.Process]) -> None:
    ended = list(processes)
    for process in ended:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(ended, timeout=PATIENCE)
