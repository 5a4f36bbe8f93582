"""Shells complete verbs, options and files."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.completion_verb import SHELLS
from pipeline.cli.main import VERBS, main
from tests.patience import PATIENCE

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


BASH = """
source ./script
COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_TYPE=9 COMP_WORDS=($LINE) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete moerank "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def shell_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Any:
    """An environment with the command `moerank`, in a folder with a shell's script and a project's file."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "moerank"
    run = "from pipeline.cli.main import main; main()"
    # argcomplete looks for its mark at a program's head, and the answer goes to a descriptor that exec keeps.
    command.write_text(f'#!/bin/sh\n# PYTHON_ARGCOMPLETE_OK\nexec {sys.executable} -c "{run}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (tmp_path / "shop.yaml").touch()
    assert main(["completion", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out, encoding="utf-8")
    return os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": ROOT, "HOME": str(tmp_path)}


LINES = [("moerank tra", "train"), ("moerank run sho", "shop.yaml"), ("moerank init log --us", "--users")]


@pytest.mark.parametrize("shell_environment", ["bash"], indirect=True)
def test_bash_completes_verbs_files_and_options(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    for line, end in LINES:
        command = ["bash", "--norc", "-c", BASH]
        done = subprocess.run(
            command, cwd=tmp_path, env=shell_environment | {"LINE": line}, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [end]


@pytest.mark.parametrize("shell_environment", ["fish"], indirect=True)
def test_fish_completes_verbs_files_and_options(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    for line, end in LINES:
        command = ["fish", "--no-config", "-c", f"source script; complete -C '{line}'"]
        done = subprocess.run(command, cwd=tmp_path, env=shell_environment, capture_output=True, text=True, check=True)
        assert [found.split("\t")[0] for found in done.stdout.splitlines()] == [end]


@pytest.mark.parametrize("shell_environment", ["zsh"], indirect=True)
def test_zsh_completes_verbs_files_and_options(tmp_path: Path, shell_environment: dict[str, str]) -> None:
    """As a person types: zsh completes only at a terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.execvpe("zsh", ["zsh", "-f", "-i"], shell_environment | {"TERM": "dumb"})  # noqa: S606, S607
    try:
        os.write(terminal, b"autoload -U compinit; compinit -u -D; source ./script; echo re''ady\n")
        assert "ready" in _seen(terminal, "ready")
        for line, end in LINES:
            os.write(terminal, f"\x15{line}\t".encode())
            assert f" {end}" in _seen(terminal, f" {end}")
    finally:
        os.write(terminal, b"\x15exit\n")
        os.waitpid(process, 0)
        os.close(terminal)


def _seen(terminal: int, wanted: str) -> str:
    """What a terminal shows, up to something."""
    seen, deadline = "", time.monotonic() + PATIENCE
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
