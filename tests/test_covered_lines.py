"""Probes in the packages' lines tell the same as coverage.py's own tracer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from coverage import Coverage, CoverageData

from tests.covered_program import MEASURED, program

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/contract/test_ranking_policy.py"


def lines_run(folder: Path, *command: str) -> dict[str, list[int]]:
    """The statements of `contract` that ran, per file."""
    file = folder / "data"
    environment = os.environ | {"COVERAGE_FILE": str(file), "COVERAGE_CORE": "ctrace"}
    subprocess.run([sys.executable, "-m", *command, "-q", TESTS], cwd=ROOT, env=environment, check=True)
    coverage = Coverage(data_file=file)
    coverage.combine([str(folder)])
    data = coverage.get_data()
    statements = {name: coverage.analysis2(str(ROOT / name)) for name in data.measured_files() if "contract" in name}
    return {name: sorted(set(found[1]) - set(found[3])) for name, found in statements.items()}


def test_the_lines_are_those_that_coverages_own_tracer_sees(tmp_path: Path) -> None:
    probes, tracer = tmp_path / "probes", tmp_path / "tracer"
    for folder in (probes, tracer):
        folder.mkdir()
    seen = lines_run(probes, "pytest", "-p", "tests.covered_lines")
    assert sum(map(len, seen.values())) > 50
    traced = ("coverage", "run", "--parallel-mode", "--source", "contract", "-m", "pytest")
    assert seen == lines_run(tracer, *traced)
    data = CoverageData(str(probes / "data"))
    data.read()
    # Files that nothing imports count as well.
    assert data.lines("pipeline/release/shipping.py") == []
    assert not [name for name in data.measured_files() if "stubs" in name or name.startswith("tests")]


def test_a_program_that_a_test_starts_is_measured_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {MEASURED: "1", "COVERAGE_FILE": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    subprocess.run([*program("pipeline"), "--version"], cwd=folder, check=True)
    coverage = Coverage(data_file=tmp_path / "data")
    coverage.combine([str(tmp_path)])
    assert coverage.get_data().lines("pipeline/cli/main.py")
