"""A private Prefect API for one command, so that nobody has to start a server.

Prefect would start one by itself, but as a child that ctrl-c ends first: the flow then cannot report its own end, and
waits a minute for an answer. This one lives in a session of its own, writes its log to a file, and starts while the
command still imports.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import psutil

from contract.errors import UnavailableError
from contract.files import locked
from pipeline.flow.tied_process import TIED

# A first start makes the database: 15 to 30 seconds on a small machine, several times that on a busy one.
START_SECONDS = 180.0
_NAMED_SECONDS = 30.0
_LOGS = "server-{}.log"
"""By the number of the command's process."""
_APPLICATION = "prefect.server.api.server:create_app"
_PRIVATE = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
# What goes wrong, and what libraries warn of, reaches a person in our own words; Prefect would add its tracebacks.
_QUIET = {"PREFECT_LOGGING_LEVEL": "CRITICAL", "PREFECT_LOGGING_ROOT_LEVEL": "ERROR"}
_SERVER = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}


@contextmanager
def prefect_api(home: Path) -> Iterator[Callable[[], None]]:
    """Let flows run inside the block: with the API that ``PREFECT_API_URL`` names, or with a private one.

    To be entered before Prefect is imported, which reads the environment then. The private one keeps its database and
    its log in `home`, unless ``PREFECT_HOME`` is set.

    Yields:
        A function that waits until the API answers; it raises `UnavailableError` where it does not.
    """
    os.environ.update({key: value for key, value in _PRIVATE.items() if key not in os.environ})
    named = os.environ.get("PREFECT_API_URL")
    if named:
        yield partial(_reach, named)
        return
    home_named = "PREFECT_HOME" in os.environ
    home = Path(os.environ.setdefault("PREFECT_HOME", str(home.absolute())))
    home.mkdir(parents=True, exist_ok=True)
    # In its own session the server does not get the signals that end us, so none may end us before we have ended it.
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, partial(_leave, signals))
    server, alone, log = None, ExitStack(), _own_log(home)
    try:
        # Of two servers that make or migrate one database at once, such as of two projects, one would fail.
        alone.enter_context(locked(home))
        server, api = _start(log)
        os.environ["PREFECT_API_URL"] = api

        def ready() -> None:
            _wait(server, api, log)
            alone.close()

        yield ready
        log.unlink(missing_ok=True)
    except BaseException:
        # An import that is left half way may answer with an error of its own, long after it.
        if signals:
            raise SystemExit(128 + signals[0]) from None
        raise
    finally:
        if server is not None:
            _stop(server)
        alone.close()
        signal.signal(signal.SIGTERM, before)
        os.environ.pop("PREFECT_API_URL", None)
        # The next command of this process may be of another project, whose files lie elsewhere.
        if not home_named:
            os.environ.pop("PREFECT_HOME", None)


def _reach(url: str) -> None:
    """Refuse a server that is named and cannot be reached; whatever it answers, it is there."""
    try:
        # A file would not harm: nothing is read, and Prefect refuses what is no URL of a server.
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=_NAMED_SECONDS):  # noqa: S310
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # Prefect has certificates of its own, or settings that do without.
        message = (
            f"no Prefect server answers at PREFECT_API_URL={url} ({reason}); start it with `prefect server start`, or "
            "unset PREFECT_API_URL to run with a private one"
        )
        raise UnavailableError(message) from error


def _leave(signals: list[int], number: int, frame: FrameType | None) -> None:
    """End the process by an exception, and note by which signal."""
    del frame
    signals.append(number)
    raise SystemExit(128 + number)


def _own_log(home: Path) -> Path:
    """This command's log, which no other one started at once writes to; those of commands that are gone are removed."""
    for left in home.glob(_LOGS.format("*")):
        number = left.stem.partition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            left.unlink(missing_ok=True)
    return home / _LOGS.format(os.getpid())


def _start(log: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """A server that writes to a file, and the URL of its API."""
    with log.open("wb") as out, socket.create_server(("127.0.0.1", 0)) as listening:
        # The server gets the open socket: a number alone would be anybody's until the server, after some seconds of
        # imports, took the port. uvicorn does not know this socket's family, so what makes answers leave at once is
        # set here, and what it accepts inherits it.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        api = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        os.environ |= _QUIET
        options = ["--fd", str(listening.fileno()), "--log-level", "error"]
        server = subprocess.Popen(
            [sys.executable, "-m", TIED, str(os.getpid()), "uvicorn", "--factory", _APPLICATION, *options],
            env=os.environ | _SERVER | {"PREFECT_API_URL": api},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=[listening.fileno()],
        )
    return server, api


def _wait(server: "subprocess.Popen[bytes]", api: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=5):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"no answer within {START_SECONDS:.0f} s"
    message = f"Prefect's local server did not start: {reason} (all of it: {log}); `moerank doctor` looks for causes"
    raise UnavailableError(message)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server; a second ctrl-c must not leave it behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        server.terminate()
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    finally:
        signal.signal(signal.SIGINT, before)
