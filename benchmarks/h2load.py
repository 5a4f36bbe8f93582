"""Load by h2load (Debian: nghttp2-client), a generator in C++: a gRPC call is a POST of one framed message.

h2load does not look at grpc-status, so callers must compare its count with what the server says it answered well.
"""

import re
import resource
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from contract.errors import ConfigError

CONNECTIONS = 4


@dataclass(frozen=True)
class Loaded:
    """Calls that came back with HTTP 200, how long all took, and each one's milliseconds, ascending."""

    calls: int
    seconds: float
    latencies_ms: NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """Calls a second, and how many cores the generator itself took meanwhile."""

    calls: float
    client_cores: float


def load(port: int, path: str, message: bytes, calls: int, callers: int, connections: int) -> Loaded:
    """Make `calls` calls with one message, `callers` of them at once, over so many connections if there are callers.

    Each connection makes the same number of calls.

    Raises:
        ConfigError: h2load is not installed, or it could not make all calls.
    """
    with TemporaryDirectory() as folder:
        log = Path(folder) / "calls.log"
        printed, good = _run(port, path, message, ["-n", str(calls), "--log-file", str(log)], callers, connections)
        seen = re.search(r"finished in ([0-9.]+)(us|ms|s|m)\b", printed)
        if seen is None or good != calls:
            message_ = f"h2load did not make its {calls} calls: {printed[-400:]}"
            raise ConfigError(message_)
        latencies = [int(line.split("\t")[2]) / 1000 for line in log.read_text(encoding="ascii").splitlines()]
    seconds = float(seen[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[seen[2]]
    return Loaded(calls, seconds, np.sort(np.array(latencies)))


def rate(port: int, path: str, message: bytes, seconds: int, callers: int, connections: int) -> Rate:
    """What comes back with HTTP 200 while all callers call for so many seconds, after an uncounted one.

    No connection waits for another: where the kernel gives one process more connections than another, a fixed number
    of calls for each would measure the process that has most of them.

    Raises:
        ConfigError: h2load is not installed, or no call came back.
    """
    start, before = time.perf_counter(), _children_cpu()
    printed, good = _run(port, path, message, ["-D", f"{seconds}s", "--warm-up-time", "1s"], callers, connections)
    if not good:
        message_ = f"h2load got no answer in {seconds} seconds: {printed[-400:]}"
        raise ConfigError(message_)
    return Rate(good / seconds, (_children_cpu() - before) / (time.perf_counter() - start))


def _children_cpu() -> float:
    """CPU seconds of the children that ended; servers that still run are not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(
    port: int, path: str, message: bytes, amount: Sequence[str], callers: int, connections: int
) -> tuple[str, int]:
    """What h2load prints, and how many calls came back with HTTP 200."""
    program = shutil.which("h2load")
    if program is None:
        message_ = "h2load is not installed; on Debian and Ubuntu: apt-get install nghttp2-client"
        raise ConfigError(message_)
    connections = min(connections, callers)
    command = [program, *amount, "-c", str(connections), "-m", str(callers // connections), "-t", "1"]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-timeout: 30S"]
    with NamedTemporaryFile() as body:
        body.write(struct.pack(">BI", 0, len(message)) + message)
        body.flush()
        target = f"http://127.0.0.1:{port}{path}"
        run = subprocess.run([*command, *headers, "-d", body.name, target], capture_output=True, text=True, check=False)
    good = re.search(r"(\d+) 2xx", run.stdout)
    if run.returncode or good is None:
        message_ = f"h2load failed: {run.stdout[-400:]}{run.stderr[-400:]}"
        raise ConfigError(message_)
    return run.stdout, int(good[1])
