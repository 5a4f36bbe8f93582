"""How much the server's threads get in each other's way: ``python -m benchmarks.serving_threads [--json]``.

Each front as `moerank serve` runs it, under Linux's SCHED_BATCH, and under the default policy, in turns: CPU and
switches between threads per call, by the kernel's count, and latencies. Raw tensors of 10 candidates for the dense
graph.
"""

import re
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_graph import ITEMS, publish_dense
from benchmarks.serving_payload import current, payload
from benchmarks.serving_process import INFER, Server, serving

CANDIDATES, CALLS, WARM_UP = 10, 2000, 64
CALLERS = (1, 32)
DEFAULT_POLICY = (
    "import sys, serving.grpc_server.server; serving.grpc_server.server.compute_bound = lambda: None; "
    "from serving.__main__ import main; sys.exit(main())"
)
PROGRAMS = {"SCHED_BATCH": ("-m", "serving"), "default policy": ("-c", DEFAULT_POLICY)}
FRONTS = ("grpcio", "native")
UNITS = {"CPU": "CPU-ms", "interruptions": "a call", "waits": "a call", "p50, 1 callers": "ms", "p50, 32 callers": "ms"}


def main() -> int:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds, all servers in turns [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        return finish("serving_threads", _measured(Path(name), args.rounds, running), as_json=args.json)


def _measured(folder: Path, rounds: int, running: ExitStack) -> list[Case]:
    publish_dense(folder / "dense", folder / "work")
    message = payload(current(folder / "dense"), None, ITEMS, CANDIDATES, {}).infer
    servers = {
        f"{front}, {policy}": running.enter_context(serving(folder / "dense", "--front", front, program=program))
        for front in FRONTS
        for policy, program in PROGRAMS.items()
    }
    seen: dict[str, list[float]] = defaultdict(list)
    for server in servers.values():
        server.loaded(INFER, message, WARM_UP, max(CALLERS))
    for _ in range(rounds):
        for name, server in servers.items():
            for figure, value in _figures(server, message).items():
                seen[f"{figure}, {name}"].append(value)
    return [case_of(f"{f}, {name}", seen[f"{f}, {name}"], unit) for f, unit in UNITS.items() for name in servers]


def _figures(server: Server, message: bytes) -> dict[str, float]:
    figures: dict[str, float] = {}
    for callers in CALLERS:
        before = _switches(server)
        answers, spent = server.loaded(INFER, message, CALLS, callers)
        figures[f"p50, {callers} callers"] = float(np.percentile(answers.latencies_ms, 50))
    waits, interruptions = ((after - begin) / CALLS for begin, after in zip(before, _switches(server), strict=True))
    return {**figures, "CPU": spent * 1000, "waits": waits, "interruptions": interruptions}


def _switches(server: Server) -> tuple[int, int]:
    """How often threads of a server waited, and how often they were interrupted."""
    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    counts = [re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text(encoding="ascii")) for task in tasks]
    return sum(int(own) for own, _ in counts), sum(int(forced) for _, forced in counts)


if __name__ == "__main__":
    sys.exit(main())
