"""What serving costs over onnxruntime called in-process: ``python -m benchmarks.serving [--json]``.

CPU efficiency is the CPU of in-process onnxruntime a request, divided by the CPU of the server a request, on the same
graph and payload, with all checks, metrics and deadlines on. Both are measured in turns in each round. The load comes
from h2load; that every call ended with grpc-status 0 is known from the server's own count, which must match.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.h2load import Loaded, load
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_graph import FEATURES, ITEMS, MODEL, ROWS, publish_dense
from features.errors import MoerankError, PredictionError
from serving.engine import Engine
from serving.query import Query
from serving.stubs.inference import grpc_service_pb2 as pb

BOUNDS = {10: 0.25, 100: 0.55, 500: 0.75}
INFER, RANK = "/inference.GRPCInferenceService/ModelInfer", "/moerank.v1.RankingService/Rank"
STATISTICS = "/inference.GRPCInferenceService/ModelStatistics"
CALLERS = 32
LATENCY_CALLERS = (1, 8, 32)
LATENCY_CANDIDATES = 100
WARM_UP = 64


@dataclass(frozen=True)
class Server:
    """The server's process and port."""

    process: psutil.Process
    port: int

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def successes(self) -> int:
        """Calls that it answered with grpc-status 0."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            ask = channel.unary_unary(
                STATISTICS,
                request_serializer=pb.ModelStatisticsRequest.SerializeToString,
                response_deserializer=pb.ModelStatisticsResponse.FromString,
            )
            stats = ask(pb.ModelStatisticsRequest(name=MODEL), timeout=30).model_stats
        return int(stats[0].inference_stats.success.count) if stats else 0

    def loaded(self, path: str, message: bytes, calls: int, callers: int, folder: Path) -> tuple[Loaded, float]:
        """What the load generator saw, and the server's CPU seconds a call.

        Raises:
            PredictionError: a call did not end with grpc-status 0.
        """
        before, cpu = self.successes(), self.cpu()
        seen = load(self.port, path, message, calls, callers, folder)
        spent = self.cpu() - cpu
        answered = self.successes() - before
        if answered != calls:
            text = f"{calls - answered} of {calls} calls of {path} did not end with grpc-status 0"
            raise PredictionError(text)
        return seen, spent / calls


@contextmanager
def serving(store: Path) -> Iterator[Server]:
    """A server on a free port, in a process of its own."""
    command = [sys.executable, "-m", "serving", str(store), "--port", "0", "--max-queue", "1024"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            lines = child.stderr or ()
            port = next(int(found[1]) for line in lines if (found := re.search(r"on 127\.0\.0\.1:(\d+)", line)))
            yield Server(psutil.Process(child.pid), port)
        finally:
            child.terminate()
            child.wait()


def infer_message(ids: NDArray[np.int64]) -> bytes:
    """Raw tensors in the Open Inference Protocol."""
    request = pb.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="candidate_ids", datatype="INT64", shape=ids.shape)
    request.raw_input_contents.append(ids.tobytes())
    return request.SerializeToString()


def floor(engine: Engine, ids: NDArray[np.int64], calls: int) -> float:
    """CPU seconds of in-process onnxruntime a call."""
    session = engine._session  # noqa: SLF001 the floor is onnxruntime without any of our checks
    began = time.process_time()
    for _ in range(calls):
        session.run(engine.tasks, {"candidate_ids": ids})
    return (time.process_time() - began) / calls


def measure(server: Server, engine: Engine, args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """One value a round of every figure."""
    rng = np.random.default_rng(0)
    seen: dict[str, list[float]] = defaultdict(list)
    ids = {size: rng.integers(1, ROWS, (size, FEATURES)) for size in BOUNDS}
    infer = {size: infer_message(ids[size]) for size in BOUNDS}
    rank = {s: Query(None, rng.integers(0, ITEMS, s).tolist()).message(MODEL, 0).SerializeToString() for s in BOUNDS}
    for size in BOUNDS:
        for path, message in ((INFER, infer[size]), (RANK, rank[size])):
            server.loaded(path, message, WARM_UP, CALLERS, folder)
    for _ in range(args.rounds):
        for size in BOUNDS:
            base = floor(engine, ids[size], args.calls)
            _, tensors = server.loaded(INFER, infer[size], args.calls, CALLERS, folder)
            _, by_id = server.loaded(RANK, rank[size], args.calls, CALLERS, folder)
            seen[f"floor {size}"].append(base * 1000)
            seen[f"tensors {size}"].append(base / tensors)
            seen[f"ids {size}"].append(base / by_id)
        for callers in LATENCY_CALLERS:
            answers, _ = server.loaded(INFER, infer[LATENCY_CANDIDATES], args.calls, callers, folder)
            for percent in (50, 99):
                seen[f"p{percent} {callers}"].append(float(np.percentile(answers.latencies_ms, percent)))
    return seen


def cases(seen: dict[str, list[float]]) -> list[Case]:
    """The figures with their bounds."""
    found = []
    for size, bound in BOUNDS.items():
        found.append(case_of(f"onnxruntime in-process, {size} candidates", seen[f"floor {size}"], "CPU-ms"))
        name = f"CPU efficiency, {size} candidates"
        found.append(case_of(f"{name}, raw tensors", seen[f"tensors {size}"], "", bound=bound, better="higher"))
        found.append(case_of(f"{name}, ids through the tables", seen[f"ids {size}"], "", better="higher"))
    found += [
        case_of(f"p{percent}, {LATENCY_CANDIDATES} candidates, {callers} callers", seen[f"p{percent} {callers}"], "ms")
        for callers in LATENCY_CALLERS
        for percent in (50, 99)
    ]
    return found


def main() -> int:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds, floor and server in turns [%(default)s]")
    parser.add_argument("--calls", type=int, default=1000, help="calls a round and case [%(default)s]")
    args = parser.parse_args()
    try:
        return _run(args)
    except MoerankError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = publish_dense(folder / "store", folder / "work")
        with serving(folder / "store") as server:
            return finish("serving", cases(measure(server, Engine(bundle), args, folder)), as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
