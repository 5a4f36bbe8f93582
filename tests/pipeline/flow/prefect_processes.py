"""Prefect's own commands in the background of a test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.patience import PATIENCE


@contextmanager
def background(words: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[None]:
    """A Prefect command with all its children, ended when the block ends."""
    with log.open("wb") as out:
        line = [sys.executable, "-m", "prefect", *words]
        process = subprocess.Popen(line, stdout=out, stderr=out, cwd=folder, env=environment, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=PATIENCE)


def reachable(url: str) -> bool:
    """Whether a server answers well."""
    try:
        return httpx.get(url).is_success
    except httpx.HTTPError:
        return False
