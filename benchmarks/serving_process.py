"""Server processes under load: what they spend, and that every call ended with grpc-status 0."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from benchmarks.h2load import CONNECTIONS, Loaded, load
from contract.errors import ConfigError, PredictionError
from serving.stubs.inference import grpc_service_pb2 as pb

INFER, RANK = "/inference.GRPCInferenceService/ModelInfer", "/moerank.v1.RankingService/Rank"
STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
START_SECONDS = 90


@dataclass(frozen=True)
class Server:
    """A server's process, its port, and how many inferences it counts as answered with grpc-status 0."""

    process: psutil.Process
    port: int
    successes: Callable[[int], int]

    def cpu(self) -> float:
        """CPU seconds so far, of the process and those that it started."""
        times = [each.cpu_times() for each in (self.process, *self.process.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))

    def loaded(
        self, path: str, message: bytes, calls: int, callers: int, connections: int = CONNECTIONS
    ) -> tuple[Loaded, float]:
        """What the load generator saw, and the server's CPU seconds per call.

        Raises:
            PredictionError: a call did not end with grpc-status 0.
        """
        before, cpu = self.successes(self.port), self.cpu()
        seen = load(self.port, path, message, calls, callers, connections)
        spent = self.cpu() - cpu
        answered = self.successes(self.port) - before
        if answered != calls:
            text = f"{calls - answered} of {calls} calls of {path} did not end with grpc-status 0"
            raise PredictionError(text)
        return seen, spent / calls


@contextmanager
def serving(
    store: Path, *flags: str, program: Sequence[str] = ("-m", "serving"), checkout: Path | None = None
) -> Iterator[Server]:
    """Our server on a free port; that of another revision where its directory is given."""
    python = sys.executable if checkout is None else str(checkout.absolute() / ".venv/bin/python")
    command = [python, *program, str(store.absolute()), "--port", "0", "--max-queue", "1024", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=checkout) as child:
        try:
            lines = child.stderr or ()
            port = next(int(match[1]) for line in lines if (match := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
            yield Server(psutil.Process(child.pid), port, by_statistics)
        finally:
            _end(child)


@contextmanager
def other(command: Sequence[str], port: int, folder: Path, successes: Callable[[int], int]) -> Iterator[Server]:
    """Somebody else's server, once it is ready; what it prints goes to ``server.log`` in the folder."""
    with (folder / "server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as child:
        try:
            _wait_until_ready(child, port, folder)
            yield Server(psutil.Process(child.pid), port, successes)
        finally:
            _end(child)


def by_statistics(port: int) -> int:
    """By the protocol's own statistics, over all models."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(
            STATISTICS,
            request_serializer=pb.ModelStatisticsRequest.SerializeToString,
            response_deserializer=pb.ModelStatisticsResponse.FromString,
        )
        stats = ask(pb.ModelStatisticsRequest(), timeout=30).model_stats
    return sum(int(each.inference_stats.success.count) for each in stats)


def by_metrics(*parts: str) -> Callable[[int], int]:
    """By the counters, of those on the second port after the server's, whose lines hold all these parts."""

    def count(port: int) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port + 2}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return sum(int(float(line.split()[-1])) for line in lines if all(part in line for part in parts))

    return count


def free_ports() -> int:
    """The first of three free ports in a row.

    Raises:
        ConfigError: there are none.
    """
    for first in range(20_000, 60_000, 7):
        if not any(_taken(port) for port in range(first, first + 3)):
            return first
    message = "no three free ports in a row"
    raise ConfigError(message)


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_ready(child: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                ready = channel.unary_unary(
                    "/inference.GRPCInferenceService/ModelReady",
                    request_serializer=pb.ModelReadyRequest.SerializeToString,
                    response_deserializer=pb.ModelReadyResponse.FromString,
                )
                if ready(pb.ModelReadyRequest(name="dense"), timeout=2).ready:
                    return
        except grpc.RpcError:
            time.sleep(0.5)
    message = f"the other server did not start: {(folder / 'server.log').read_text()[-600:]}"
    raise ConfigError(message)


def _end(child: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    started = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
    child.terminate()
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
    for left in psutil.wait_procs(started, timeout=5)[1]:
        left.kill()
