"""Prefect's files of a test: a database that is migrated already, made once in a checkout.

Prefect's migrations take 7 CPU seconds, and each test with files of its own would run them all.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from contract.files import locked, replacing

KEPT = Path(__file__).resolve().parents[1] / "build" / "tests"


def prefect_home(folder: Path) -> str:
    """A folder for ``PREFECT_HOME``; what is in it already stays."""
    if not folder.is_dir():
        shutil.copytree(_migrated(), folder)
    return str(folder)


def _migrated() -> Path:
    made = KEPT / f"prefect-{version('prefect')}"
    with locked(KEPT):
        if not made.is_dir():
            with replacing(made) as fresh:
                _migrate(fresh)
    return made


def _migrate(home: Path) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(upgrade, env=others | {"PREFECT_HOME": str(home)}, check=True, capture_output=True)
