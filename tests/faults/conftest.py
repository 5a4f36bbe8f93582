"""How hard the faults are tried: a short form in every test run, the long one with FAULTS_LONG=1.

What a test measured (`record_property`) is printed at the end of a long run, for benchmarks/faults.md.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tests.tiny_bundle import publish_tiny

LONG = os.environ.get("FAULTS_LONG", "") not in {"", "0"}
Front = Literal["grpcio", "native"]
Tell = Callable[[str, object], None]
# tests/serving tries the other front in short.
FRONTS: tuple[Front, ...] = ("grpcio", "native") if LONG else ("grpcio",)


@pytest.fixture
def rounds() -> "type[Rounds]":
    return Rounds


def seeded() -> random.Random:
    """The same chances in every run."""
    return random.Random(0)  # noqa: S311 nothing here is secret


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if LONG and report.when == "call" and report.user_properties:
            terminalreporter.write_line(report.nodeid.rpartition("/")[2])
            for name, value in report.user_properties:
                terminalreporter.write_line(f"    {name}: {value}")


class Rounds:
    """Picks the size of a trial."""

    @staticmethod
    def of(short: int, long: int) -> int:
        return long if LONG else short


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_tiny(tmp_path / "store", tmp_path / "work")
    return tmp_path / "store"
