"""A job of several ranks fails with one message, by the rank that knows the cause."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.cli import rank_failures
from pipeline.cli.rank_failures import speaks
from tests.patience import PATIENCE
from tests.pipeline.tiny_project import write_project

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What torchrun tells the second of two ranks."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(rank_failures.ERROR_FILE, str(tmp_path / "1" / "error.json"))
    (tmp_path / "1").mkdir()
    return tmp_path


def test_the_first_rank_tells_and_torchruns_summary_has_its_words(attempt: Path) -> None:
    assert speaks("moerank train (rank 1 of 2): no such file")
    assert not speaks("another rank has ended")
    told = json.loads((attempt / "1" / "error.json").read_text())["message"]["extraInfo"]
    assert told["py_callstack"] == "moerank train (rank 1 of 2): no such file"


def test_a_rank_that_lost_another_waits_for_its_message(attempt: Path) -> None:
    cause = threading.Timer(0.2, (attempt / "told").write_text, ["the cause"])
    cause.start()
    assert not speaks("another rank has ended", seconds=PATIENCE)
    cause.join()


def test_a_process_of_its_own_always_tells() -> None:
    assert speaks("one")
    assert speaks("two")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    path = write_project(folder)
    subprocess.run([sys.executable, "-m", "pipeline", "features", str(path)], cwd=folder, env=ENVIRONMENT, check=True)
    return path


def words(project: Path, *changes: str) -> list[str]:
    return ["-m", "pipeline", "train", str(project), *(word for change in changes for word in ("--set", change))]


@pytest.mark.slow
def test_under_torchrun_two_ranks_tell_one_cause_once(project: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += words(project, "train.batch_size=2")
    run = subprocess.run(command, cwd=project.parent, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    lines = [line for line in run.stderr.splitlines() if line.startswith("moerank train")]
    assert len(lines) == 1
    assert "of 2): train.batch_size is 2, of all 2 ranks together" in lines[0]
    assert f"traceback : {lines[0]}" in run.stderr
    # The one trace is torchrun's own.
    assert run.stderr.count("Traceback") == 1
    assert str(ROOT / "pipeline") not in run.stderr


@pytest.mark.slow
def test_a_killed_rank_is_one_message_with_what_to_do(project: Path) -> None:
    code, line = told_after(project, 1, lambda ranks: ranks["1"].send_signal(signal.SIGKILL))
    assert line.startswith("moerank train: rank 1 of 2 was ended by SIGKILL; ")
    assert code == 1


@pytest.mark.slow
@pytest.mark.parametrize("whom", [("", "0", "1"), ("1",)], ids=["all, as ctrl-c does", "one rank"])
def test_an_interruption_of_several_ranks_is_told_once(project: Path, whom: tuple[str, ...]) -> None:
    def interrupt(ranks: dict[str, psutil.Process]) -> None:
        for rank in whom:
            ranks[rank].send_signal(signal.SIGINT)

    code, line = told_after(project, 2 + len(whom), interrupt)
    assert line == "moerank train: interrupted; the same command goes on where this one stopped"
    assert code == 130


def told_after(project: Path, seed: int, happen: Callable[[dict[str, psutil.Process]], None]) -> tuple[int, str]:
    """What two ranks that are training come to when something happens to them: the exit code and the one line.

    `happen` is given the ranks by number, and the command itself as "".
    """
    endless = "train.epochs=100000", "train.early_stopping=null", "train.checkpoint.every_steps=2"
    command = [sys.executable, *words(project, *endless, f"train.seed={seed}"), "--ranks", "2"]
    before = set((project.parent / "runs").rglob("checkpoint/step-*"))
    job = subprocess.Popen(command, cwd=project.parent, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        while job.poll() is None:
            time.sleep(0.1)
            if set((project.parent / "runs").rglob("checkpoint/step-*")) - before:
                parent = psutil.Process(job.pid)
                happen({child.environ().get("RANK", ""): child for child in parent.children()} | {"": parent})
                break
        _, told = job.communicate(timeout=PATIENCE)
    finally:
        job.kill()
    # Lines of progress are indented.
    (line,) = [line for line in told.splitlines() if line.strip() and not line.startswith("  ")]
    return job.returncode, line


@pytest.mark.slow
def test_two_ranks_train_one_seed_after_the_other_and_tell_the_means_once(project: Path) -> None:
    changes = words(project, "train.epochs=1", "train.batch_size=512")
    command = [sys.executable, *changes, "--ranks", "2", "--seeds", "2", "--json"]
    run = subprocess.run(command, cwd=project.parent, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    told = json.loads(run.stdout)
    assert told["seeds"] == [0, 1]
    assert len(set(told["runs"])) == len(told["runs"]) == 2
    assert {(each["task"], each["metric"]) for each in told["metrics"]} >= {("like", "auc"), ("rating", "rmse")}


def test_torchs_own_log_of_a_failed_job_is_silent() -> None:
    code = """
import logging
from torch.distributed.launcher.api import elastic_launch
from pipeline.training.ranks_launch import silence_elastic
silence_elastic()
loggers = [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]
print(len(loggers), any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in loggers))
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True, text=True)
    loggers, enabled = done.stdout.split()
    assert int(loggers) > 1
    assert enabled == "False"
