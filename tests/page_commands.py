"""Pages that are true: their files are written, their commands run, and they print lines of the form shown.

A fenced block is one of: ``console`` (commands after ``$``, then what they print, ``...`` for lines left out),
``python FILE`` or ``yaml FILE`` (written to FILE), ``text`` (shown only).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.patience import PATIENCE
from tests.ports import free_port
from tests.prefect_home import prefect_home

# These go on until they are stopped; each is ready when its port answers.
STAYING = {"moerank serve": "50051", "prefect server start": "4200", "prefect worker start": ""}
STARTED_WITHIN_SECONDS = 3 * PATIENCE
BASH = shutil.which("bash") or "/bin/bash"


@dataclass(frozen=True)
class Command:
    """A command line and the lines that it is said to print."""

    line: str
    output: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, its text, and the heading it stands under."""

    info: str
    text: str
    heading: str

    def commands(self) -> list[Command]:
        found: list[Command] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(Command(line.removeprefix("$ ")))
            else:
                found[-1].output.append(line)
        return found


def blocks(page: str) -> list[Block]:
    found, heading = [], ""
    for match in re.finditer(r"^## (?P<heading>.+)$|^```(?P<info>\S.*)\n(?P<text>(?:.*\n)*?)```$", page, re.MULTILINE):
        heading = match["heading"] or heading
        if match["info"]:
            found.append(Block(match["info"], match["text"], heading))
    return found


def commands(page: str) -> list[Command]:
    return [command for block in blocks(page) if block.info == "console" for command in block.commands()]


def form(line: str) -> str:
    """A line without what differs from run to run or between processors: numbers, verdicts, names of runs, padding."""
    line = re.sub(r"(no clear difference.*|[AB] is better)$", "VERDICT", line)
    return " ".join(re.sub(r"\b[0-9a-f]{16}\b|[-+]?\d[\d.:T+-]*\d|\d", "#", line).split())


@dataclass
class Shell:
    """Runs commands in a folder, as a user with `.venv/bin` on the path would, on ports that are free."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str]
    not_run: Mapping[str, str]
    staying: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, command: Command) -> None:
        line = self.localised(command.line)
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value
        elif start := next((start for start in STAYING if line.startswith(start)), None):
            self.start(line, STAYING[start])
        elif line not in self.not_run:
            self.compare(line, command.output)

    def localised(self, text: str) -> str:
        for port, free in self.ports.items():
            text = text.replace(port, free)
        return text

    def start(self, line: str, port: str) -> None:
        log = (self.folder / f"log-{len(self.staying)}.txt").open("wb")
        with log:
            running = subprocess.Popen(
                [BASH, "-c", f"exec {line}"], cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.staying.append(running)
        deadline = time.monotonic() + STARTED_WITHIN_SECONDS
        while port and not answers(int(self.ports[port])):
            waiting = running.poll() is None and time.monotonic() < deadline
            assert waiting, Path(log.name).read_text(encoding="utf-8")
            time.sleep(0.2)

    def compare(self, line: str, expected: list[str]) -> None:
        done = subprocess.run(
            [BASH, "-c", line], cwd=self.folder, env=self.environment, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {line}\n{done.stdout}"
        printed = {form(text) for text in done.stdout.splitlines()}
        missing = [text for text in expected if text.strip() != "..." and form(text) not in printed]
        assert not missing, f"$ {line}\nprinted\n{done.stdout}\nand not\n" + "\n".join(missing)

    def stop(self) -> None:
        """As ctrl-c in each terminal would, the last started first; what does not end is killed."""
        for running in reversed(self.staying):
            if running.poll() is None:
                family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
                running.send_signal(signal.SIGINT)
                _, alive = psutil.wait_procs(family, timeout=PATIENCE)
                for process in alive:
                    process.kill()
            running.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def opened_shell(folder: Path, not_run: Mapping[str, str]) -> Iterator[Shell]:
    """A shell in a folder, whose commands are stopped at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MOERANK_"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": prefect_home(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    shell = Shell(folder, environment, {port: str(free_port()) for port in STAYING.values() if port}, not_run)
    try:
        yield shell
    finally:
        shell.stop()


def work_through_all(page: str, shell: Shell) -> None:
    """Do what a page says, from top to bottom; an error says in which chapter."""
    for block in blocks(page):
        try:
            work_through(block, shell)
        except BaseException as error:
            error.add_note(f"in the chapter {block.heading!r}")
            raise


def work_through(block: Block, shell: Shell) -> None:
    kind, _, file = block.info.partition(" ")
    if file:
        (shell.folder / file).write_text(shell.localised(block.text), encoding="utf-8")
    elif kind == "console":
        for command in block.commands():
            shell.run(command)
    else:
        assert kind == "text", f"a block of kind {block.info!r} is neither run nor written"
