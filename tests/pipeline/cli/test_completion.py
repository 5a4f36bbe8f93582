"""Shells complete verbs, options and files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.completion_verb import SHELLS
from pipeline.cli.main import VERBS, main

ROOT = str(Path(__file__).resolve().parents[3])


def completed(line: str, folder: Path) -> list[str]:
    """How a line may go on, as a shell asks it: the answer comes on the file descriptor 8."""
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    environment = os.environ | asked | {"PYTHONPATH": ROOT, "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash"}
    command = f"exec 8>answer; {sys.executable} -c 'from pipeline.cli.main import main; main()'"
    subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, check=True, capture_output=True)
    return (folder / "answer").read_text(encoding="utf-8").split()


def test_all_verbs_are_offered(tmp_path: Path) -> None:
    assert set(completed("moerank ", tmp_path)) >= {verb.name for verb in VERBS}


def test_a_verb_is_completed(tmp_path: Path) -> None:
    assert completed("moerank tra", tmp_path) == ["train"]


def test_options_of_a_verb_are_completed(tmp_path: Path) -> None:
    assert completed("moerank init log --us", tmp_path) == ["--users"]


def test_files_are_completed(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").touch()
    assert completed("moerank run sho", tmp_path) == ["shop.yaml"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_is_given_is_its_language(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / "moerank"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    assert "moerank" in script.read_text(encoding="utf-8")
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([found, "-n", str(script)], check=True)
