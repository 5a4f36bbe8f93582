"""Load by h2load (Debian: nghttp2-client), a generator in C++: a gRPC call is a POST of one framed message.

h2load does not look at grpc-status, so callers must compare its count with what the server says it answered well.
"""

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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


def load(port: int, path: str, message: bytes, calls: int, callers: int, connections: int) -> Loaded:
    """Make `calls` calls with one message, `callers` of them at once, over so many connections if there are callers.

    Raises:
        ConfigError: h2load is not installed, or it could not make all calls.
    """
    program = shutil.which("h2load")
    if program is None:
        message_ = "h2load is not installed; on Debian and Ubuntu: apt-get install nghttp2-client"
        raise ConfigError(message_)
    connections = min(connections, callers)
    command = [program, "-n", str(calls), "-c", str(connections), "-m", str(callers // connections), "-t", "1"]
    with TemporaryDirectory() as folder:
        return _run(command, port, path, message, calls, Path(folder))


def _run(command: list[str], port: int, path: str, message: bytes, calls: int, folder: Path) -> Loaded:
    body, log = folder / "body.bin", folder / "calls.log"
    body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "grpc-timeout: 30S"]
    target = f"http://127.0.0.1:{port}{path}"
    run = subprocess.run(
        [*command, *headers, "-d", str(body), "--log-file", str(log), target],
        capture_output=True,
        text=True,
        check=False,
    )
    seen = re.search(r"finished in ([0-9.]+)(us|ms|s|m)\b", run.stdout)
    good = re.search(r"(\d+) 2xx", run.stdout)
    if run.returncode or seen is None or good is None or int(good[1]) != calls:
        message_ = f"h2load did not make its {calls} calls: {run.stdout[-400:]}{run.stderr[-400:]}"
        raise ConfigError(message_)
    seconds = float(seen[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[seen[2]]
    latencies = [int(line.split("\t")[2]) / 1000 for line in log.read_text(encoding="ascii").splitlines()]
    return Loaded(calls, seconds, np.sort(np.array(latencies)))
