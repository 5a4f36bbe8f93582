"""The private API ends with its command, by whatever it ends."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest
from filelock import FileLock, Timeout

from contract.errors import UnavailableError
from contract.files import LOCK_FILE
from pipeline.flow.prefect_server import prefect_api


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine where nobody named a server or a home."""
    with mock.patch.dict(os.environ):
        for name in ("PREFECT_API_URL", "PREFECT_HOME"):
            monkeypatch.delenv(name, raising=False)
        yield


def fail_after_a_signal() -> None:
    """What an import does that swallows the signal's exception."""
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    raise RecursionError


def test_an_error_that_a_signal_left_behind_is_that_signal(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended, prefect_api(tmp_path):
        fail_after_a_signal()
    assert ended.value.code == 128 + signal.SIGTERM


def test_an_error_without_a_signal_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RecursionError), prefect_api(tmp_path):
        raise RecursionError


def test_a_second_project_of_one_process_has_its_files_in_its_own_home(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with prefect_api(tmp_path / name):
            assert os.environ["PREFECT_HOME"] == str(tmp_path / name)
    assert "PREFECT_HOME" not in os.environ


def test_a_home_that_was_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "named"))
    with prefect_api(tmp_path / "own"):
        assert not (tmp_path / "own").exists()
    assert os.environ["PREFECT_HOME"] == str(tmp_path / "named")


def test_another_server_of_the_same_files_waits_until_one_has_made_the_database(tmp_path: Path) -> None:
    other = FileLock(tmp_path / LOCK_FILE, timeout=0)
    with prefect_api(tmp_path), pytest.raises(Timeout), other:
        pass
    with other:
        assert other.is_locked


def test_nobody_else_gets_the_port_while_the_server_starts(tmp_path: Path) -> None:
    with prefect_api(tmp_path), socket.socket() as other:
        port = urlsplit(os.environ["PREFECT_API_URL"]).port
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_each_command_has_a_log_of_its_own_and_clears_those_of_dead_ones(tmp_path: Path) -> None:
    alive, dead, mine = (tmp_path / f"server-{number}.log" for number in (os.getppid(), 2**22 + 1, os.getpid()))
    alive.write_text("of another command")
    dead.write_text("of one that was killed")
    with prefect_api(tmp_path):
        assert mine.is_file()
        assert not dead.exists()
    assert alive.read_text() == "of another command"
    assert not mine.exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "127.0.0.1:9"])
def test_a_named_server_that_does_not_answer_is_one_sentence(tmp_path: Path, url: str) -> None:
    with (
        mock.patch.dict(os.environ, {"PREFECT_API_URL": url}),
        pytest.raises(UnavailableError, match=rf"no Prefect server answers at PREFECT_API_URL={url} "),
        prefect_api(tmp_path) as ready,
    ):
        ready()
