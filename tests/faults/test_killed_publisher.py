"""A publisher killed at any moment leaves a store whose current version loads."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import MoerankError
from serving.generate import ROOT
from serving.store.bundle import load
from serving.store.local_store import current, point, versions
from tests.faults.conftest import Rounds, seeded
from tests.patience import PATIENCE
from tests.tiny_bundle import publish_tiny

# Forks a fresh publisher for each line on stdin and answers its process id: importing again would take minutes.
PUBLISHER = """
import os, pathlib, shutil, sys, signal
from serving.store.bundle import publish
from tests.tiny_bundle import make_files, make_schema
store, work, way = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
files = make_files(work)
facts = {"schema_fingerprint": make_schema().fingerprint(), "tasks": ["like", "rating"]}
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def careless():
    for name in ("manifest.json", *files):
        source, target = store / "tiny" / "1" / name, store / "tiny" / "1" / name
        content = source.read_bytes()
        with target.open("wb") as file:
            for byte in range(0, len(content), 64):
                file.write(content[byte : byte + 64])
                file.flush()
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        while True:
            careless() if way == "careless" else publish(store, "tiny", files, facts)
    print(child, flush=True)
"""


def broken_after_kills(store: Path, work: Path, way: str, kills: int, enough: Callable[[int], bool]) -> int:
    """How many kills left a current version that does not load; the store is mended after each.

    On a slow machine the publishers live longer and longer, until enough has happened.
    """
    good = store.with_name("good")
    shutil.copytree(store, good)
    dice, broken = seeded(), 0
    command = [sys.executable, "-c", PUBLISHER, str(store), str(work), way]
    single = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=single
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        killed, end = 0, time.monotonic() + PATIENCE
        while killed < kills or not (enough(broken) or time.monotonic() > end):
            print("go", file=child.stdin, flush=True)
            publisher = int(child.stdout.readline())
            time.sleep(dice.uniform(0.002, 0.2) * max(1.0, killed / kills))
            os.kill(publisher, signal.SIGKILL)
            killed += 1
            while Path(f"/proc/{publisher}").exists():
                time.sleep(0.001)
            try:
                load(store / "tiny" / str(current(store, "tiny")))
            except MoerankError:
                broken += 1
                shutil.rmtree(store)
                shutil.copytree(good, store)
        child.stdin.close()
    return broken


def test_a_killed_publisher_never_breaks_the_current_version(store: Path, tmp_path: Path, rounds: type[Rounds]) -> None:
    def published(_: int) -> bool:
        return len(versions(store, "tiny")) > 1

    assert broken_after_kills(store, tmp_path / "more", "publish", rounds.of(20, 60), published) == 0
    assert published(0)
    publish_tiny(store, tmp_path / "last")
    assert not list((store / "tiny").glob(".tmp-*"))
    point(store, "tiny", 1)


def test_control_a_publisher_that_overwrites_does_break_it(store: Path, tmp_path: Path) -> None:
    assert broken_after_kills(store, tmp_path / "more", "careless", 20, bool) > 0


@pytest.mark.parametrize("way", ["symlink", "copy"])
def test_a_store_is_read_wherever_it_lies(store: Path, tmp_path: Path, way: str) -> None:
    moved = tmp_path / "moved"
    if way == "symlink":
        moved.symlink_to(store)
    else:
        shutil.copytree(store, moved)
    assert load(moved / "tiny" / "1").manifest.version == 1
