"""Which lines of the packages the tests run: a pytest plugin (``-p tests.covered_lines``).

coverage.py counts and reports, but its tracer hears of every call in the process, and most of an export to ONNX is
calls within torch: under it an export took twice its time. SlipCover puts a probe into each line of the packages alone
as they are imported. Each process hands the lines that ran to coverage.py, as a data file that `tests.coverage_floor`
combines with the others.
"""

import os
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData
from slipcover import FileMatcher, ImportManager, Slipcover

from tests.covered_program import MEASURED

ROOT = Path(__file__).resolve().parent.parent
_NEVER = 2**31 - 1
"""Misses after which SlipCover takes probes out again, for which it would exchange functions that others hold."""


class CoveredLines:
    """Measures what is imported from now on, and writes the data file when the session ends."""

    def __init__(self) -> None:
        settings = Coverage(config_file=str(ROOT / "pyproject.toml")).config
        self._data_file = str(ROOT / settings.data_file)
        self._packages = [ROOT / name for name in settings.source_pkgs]
        self._files = FileMatcher(sources=self._packages, omit=[str(ROOT / pattern) for pattern in settings.run_omit])
        self._probes = Slipcover(d_miss_threshold=_NEVER)
        ImportManager(self._probes, self._files).__enter__()

    def pytest_sessionfinish(self) -> None:
        self.write()

    def write(self) -> None:
        data = CoverageData(basename=self._data_file, suffix=True)
        data.add_lines({relative(Path(file)): lines for file, lines in self._probes.newly_seen.items()})
        files = (file for package in self._packages for file in package.rglob("*.py") if self._files.matches(file))
        data.touch_files([relative(file) for file in files])
        data.write()


def relative(file: Path) -> str:
    # Some tests run the packages through a link in their own directory.
    return str(file.resolve().relative_to(ROOT))


# Before any test or conftest.py is imported, which import the packages.
MEASURING = CoveredLines()
# Tells commands that tests start to be measured as well: see `tests.covered_program`.
os.environ[MEASURED] = "1"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(MEASURING)
