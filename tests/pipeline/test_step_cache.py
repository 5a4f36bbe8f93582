"""Steps that are not repeated."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.digests import digest_of
from contract.errors import ConfigError
from contract.files import exclusive
from pipeline.console import Progress
from pipeline.step_cache import STEP_FILE, once, read_record


class Work:
    """Writes one file and counts how often it was asked to."""

    def __init__(self, directory: Path, *, fail: bool = False, in_place: bool = True) -> None:
        self.directory, self.fail, self.in_place, self.times = directory, fail, in_place, 0

    def __call__(self, progress: Progress) -> dict[str, Any]:
        self.times += 1
        progress("writing")
        if self.fail:
            raise KeyboardInterrupt
        (self.directory / "made.txt").write_text("made", encoding="utf-8")
        return {"times": self.times}

    def run(self, stamp: str) -> dict[str, Any]:
        return once("work", self.directory, stamp, self, ["made.txt"], in_place=self.in_place).result


def test_unchanged_work_is_done_once_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    work = Work(tmp_path)
    assert work.run("a") == work.run("a") == {"times": 1}
    assert "work: reused, unchanged since" in capfd.readouterr().err


def test_another_stamp_or_a_missing_output_means_working_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run("a")
    work.run("b")
    (tmp_path / "made.txt").unlink()
    assert work.run("b") == {"times": 3}


def test_interrupted_work_leaves_no_stamp_so_that_it_runs_again(tmp_path: Path) -> None:
    Work(tmp_path).run("a")
    with pytest.raises(KeyboardInterrupt):
        Work(tmp_path, fail=True).run("b")
    assert read_record(tmp_path) is None
    assert Work(tmp_path).run("a") == {"times": 1}


def test_failed_work_that_replaces_as_a_whole_keeps_what_was_made_before(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run("a")
    with pytest.raises(KeyboardInterrupt):
        Work(tmp_path, fail=True, in_place=False).run("b")
    assert work.run("a") == {"times": 1}


def test_a_damaged_record_means_working_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run("a")
    (tmp_path / STEP_FILE).write_text("{", encoding="utf-8")
    assert work.run("a") == {"times": 2}


def test_a_stamp_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_two_processes_cannot_work_in_one_directory(tmp_path: Path) -> None:
    code = "import sys, pathlib\nfrom contract.files import exclusive\nwith exclusive(pathlib.Path(sys.argv[1])): pass"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with exclusive(tmp_path):
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
        with pytest.raises(ConfigError, match=f"process {os.getpid()} is at work"), exclusive(tmp_path):
            pass
    assert f"process {os.getpid()} is at work in {tmp_path}" in refused.stderr
    assert subprocess.run(command, check=False).returncode == 0
