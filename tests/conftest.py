"""What every test starts from."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.leftover_processes"]
# How long an example takes says how busy the machine is, not whether the code is right.
# The same examples in every run: what fails was broken by a change. ``--hypothesis-profile chance`` draws others.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.register_profile("chance", deadline=None)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take longest, so that no process works through one of them alone at the end."""
    weights: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        weight = float(limit.args[0]) if limit else 1.0 if item.get_closest_marker("slow") else 0.0
        weights[item.path] = max(weights.get(item.path, 0.0), weight)
    items.sort(key=lambda item: -weights[item.path])


def pytest_collection_finish() -> None:
    """Look for garbage more rarely, and not among what the imports left: an export takes a sixth less time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_runtest_setup() -> None:
    """Begin each test with the same random numbers: which others ran before it in its process is chance."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


def pytest_unconfigure() -> None:
    """What is still frozen at the end is reported as leaked by compiled libraries, which buries the result."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let programs under test hear ctrl-c also where the tests run in the background.

    A shell starts background jobs with SIGINT ignored, and a program inherits that from its parent; a handler of the
    parent's own it does not inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 256 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - the system's umount
