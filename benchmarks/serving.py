"""What serving costs over onnxruntime called in-process: ``python -m benchmarks.serving [--json]``.

CPU efficiency is the CPU of in-process onnxruntime a request, divided by the CPU of the server a request, on the same
graph and payload, with all checks, metrics and deadlines on. Both are measured in turns, the former before and after
each load. The load comes from h2load; that every call ended with grpc-status 0 is known from the server's own count,
which must match.

With ``--against DIR``, another checkout with a .venv of its own, its servers answer in turn with ours, and the CPU of
ours over theirs is printed. With ``--others PYTHON`` (several times) MLServer and Triton's Python backend are compared,
each in an interpreter that has ``mlserver onnxruntime`` or ``nvidia-pytriton onnxruntime`` installed.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.h2load import CONNECTIONS
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_graph import ITEMS, publish_dense
from benchmarks.serving_others import others
from benchmarks.serving_payload import Payload, current, floor, infer_message, payload
from benchmarks.serving_process import INFER, RANK, Server, serving
from benchmarks.serving_split import publish_sparse
from contract.errors import MoerankError
from serving.graph.served_model import RankingModel

BOUNDS = {"grpcio": {10: 0.30, 100: 0.65, 500: 0.80}, "native": {10: 0.55, 100: 0.80, 500: 0.88}}
IDS_OVER_TENSORS = 1.15
"""What a call by ids may cost, its features looked up, over one that brings them."""
CALLS = {10: 2000, 100: 800, 500: 250}
"""Calls a round, so that each figure is about a second of CPU."""
CALLERS = 32
LATENCY_CALLERS = (1, 8, 32)
LATENCY_CANDIDATES, MOST_CANDIDATES = 100, 500
LOG_SHARES, LOG_CALLERS, LOGGED_OVER_PLAIN = ("0.1", "1"), 8, 1.1
"""Shares of the requests that servers log, and what the default share may make of the 99th percentile."""
WARM_UP = 64
OURS_OVER_OTHERS = 4.0
KUAIRAND_ITEMS, KUAIRAND_USER = 7583, 5
KUAIRAND_CONTEXT = {"tab": 1, "hour": 20}

Seen = dict[str, list[float]]


@dataclass(frozen=True)
class Subject:
    """A model, its requests by number of candidates, and servers that have it, by front."""

    name: str
    model: RankingModel
    payloads: dict[int, Payload]
    servers: dict[str, Server]
    rivals: dict[str, Server]
    """Those of the other checkout."""


def main() -> int:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="rounds, floor and servers in turns [%(default)s]")
    parser.add_argument("--kuairand", type=Path, default=Path("runs/kuairand/store"), help="the recipe's store")
    parser.add_argument("--against", type=Path, help="another checkout, whose servers are measured in turn with ours")
    parser.add_argument("--others", type=Path, action="append", default=[], help="interpreter with another server")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as name, ExitStack() as running:
            return finish("serving", _measured(args, Path(name), running), as_json=args.json)
    except MoerankError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _measured(args: argparse.Namespace, folder: Path, running: ExitStack) -> list[Case]:
    publish_dense(folder / "dense", folder / "dense_work")
    dense = _subject("dense", folder / "dense", running, _Users(None, ITEMS, {}), args.against)
    subjects = [dense]
    try:
        users = _Users(KUAIRAND_USER, KUAIRAND_ITEMS, KUAIRAND_CONTEXT)
        subjects.append(_subject("KuaiRand", args.kuairand, running, users, args.against))
    except (MoerankError, StopIteration) as error:
        print(f"KuaiRand is left out: {args.kuairand} has no model that loads: {error}")
    publish_sparse(folder / "sparse", folder / "sparse_work", folder / "tiled.onnx")
    loggers = {share: running.enter_context(_logging(folder, share)) for share in LOG_SHARES}
    sparse = _subject("sparse", folder / "sparse", running, _Users(1, ITEMS, {}), None)
    rivals = running.enter_context(others(folder / "tiled.onnx", folder, args.others))
    seen: Seen = defaultdict(list)
    for number in range(1, args.rounds + 1):
        began = time.monotonic()
        for subject in subjects:
            _efficiencies(subject, seen)
        for front, server in dense.servers.items():
            _latencies(front, server, dense.payloads[LATENCY_CANDIDATES], seen)
        _logged_latencies(dense, loggers, seen)
        _rows_a_second(sparse, rivals, seen)
        print(f"round {number} of {args.rounds}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    cases = [*_efficiency_cases(subjects, seen), *_latency_cases(dense, seen), *_log_cases(seen)]
    return [*cases, *_rival_cases(rivals, seen)]


class _Users(NamedTuple):
    """Who asks, for candidates among so many items."""

    user: int | None
    items: int
    context: dict[str, Any]


def _subject(name: str, store: Path, running: ExitStack, users: _Users, against: Path | None) -> Subject:
    model = current(store)
    payloads = {size: payload(model, users.user, users.items, size, users.context) for size in CALLS}
    fronts = ["grpcio", "native"] if find_spec("pygrpc_native") else ["grpcio"]
    servers = {front: running.enter_context(serving(store, "--front", front)) for front in fronts}
    rivals = {}
    if against is not None:
        flags = {front: ("--front", front) for front in fronts}
        rivals = {f: running.enter_context(serving(store, *flags[f], checkout=against)) for f in fronts}
    for server in (*servers.values(), *rivals.values()):
        for each in payloads.values():
            server.loaded(INFER, each.infer, WARM_UP, CALLERS)
            server.loaded(RANK, each.rank, WARM_UP, CALLERS)
    return Subject(name, model, payloads, servers, rivals)


def _efficiencies(subject: Subject, seen: Seen) -> None:
    """The floor before and after each load, for a shared machine's speed drifts within a round."""
    for size, each in subject.payloads.items():
        loads = [
            (f"{kind} {subject.name} {front} {size}", server, path, message, CONNECTIONS)
            for kind, path, message in (("tensors", INFER, each.infer), ("ids", RANK, each.rank))
            for front in subject.servers
            for front, server in _in_turn(subject, front)
        ]
        if subject.name == "dense" and size == LATENCY_CANDIDATES:
            loads += [(f"one connection {front}", s, INFER, each.infer, 1) for front, s in subject.servers.items()]
        before = floor(subject.model.engine, each.feed, CALLS[size] // 3)
        for key, server, path, message, connections in loads:
            _, spent = server.loaded(path, message, CALLS[size], CALLERS, connections)
            after = floor(subject.model.engine, each.feed, CALLS[size] // 3)
            seen[f"floor {subject.name} {size}"].append(after * 1000)
            seen[key].append((before + after) / 2 / spent)
            before = after


def _in_turn(subject: Subject, front: str) -> list[tuple[str, Server]]:
    """Our server, and that of the other checkout right after it."""
    rival = subject.rivals.get(front)
    return [(front, subject.servers[front]), *([] if rival is None else [(f"other {front}", rival)])]


def _latencies(front: str, server: Server, each: Payload, seen: Seen) -> None:
    for callers in LATENCY_CALLERS:
        answers, _ = server.loaded(INFER, each.infer, CALLS[LATENCY_CANDIDATES], callers)
        for percent in (50, 99):
            seen[f"p{percent} {front} {callers}"].append(float(np.percentile(answers.latencies_ms, percent)))


def _logging(folder: Path, share: str) -> AbstractContextManager[Server]:
    """A server that logs a share of its requests."""
    return serving(folder / "dense", "--log", str(folder / f"log-{share}"), "--log-share", share, "--log-seconds", "2")


def _logged_latencies(dense: Subject, loggers: dict[str, Server], seen: Seen) -> None:
    """With and without a log, in turn."""
    message = dense.payloads[LATENCY_CANDIDATES].rank
    for share, logger in loggers.items():
        slowest = []
        for server in (dense.servers["grpcio"], logger):
            answers, _ = server.loaded(RANK, message, CALLS[LATENCY_CANDIDATES], LOG_CALLERS)
            slowest.append(float(np.percentile(answers.latencies_ms, 99)))
        seen[f"log {share}"].append(slowest[1] / slowest[0])


def _log_cases(seen: Seen) -> list[Case]:
    what = f"dense, {LATENCY_CANDIDATES} candidates, grpcio, {LOG_CALLERS} callers"
    bounds = {LOG_SHARES[0]: LOGGED_OVER_PLAIN}
    return [
        case_of(f"p99 with a log of {share} of the requests over p99 without, {what}", seen[f"log {share}"], "x",
                bound=bounds.get(share))
        for share in LOG_SHARES
    ]  # fmt: skip


def _rows_a_second(sparse: Subject, rivals: dict[str, Server], seen: Seen) -> None:
    """Rows ranked a CPU second: the sparse bundle here, the dense tiled graph of the same weights elsewhere."""
    if not rivals:
        return
    calls, each = CALLS[MOST_CANDIDATES], sparse.payloads[MOST_CANDIDATES]
    for front, server in sparse.servers.items():
        _, spent = server.loaded(INFER, each.infer, calls, CALLERS)
        seen[f"rows {front}"].append(MOST_CANDIDATES / spent)
    tiled = {name: np.broadcast_to(a, (MOST_CANDIDATES, a.shape[1])) for name, a in each.feed.items()}
    for name, server in rivals.items():
        _, spent = server.loaded(INFER, infer_message("dense", tiled), calls, CALLERS)
        seen[f"rows {name}"].append(MOST_CANDIDATES / spent)


def _efficiency_cases(subjects: list[Subject], seen: Seen) -> list[Case]:
    cases = []
    for subject in subjects:
        for size in CALLS:
            name = f"{subject.name}, {size} candidates"
            cases.append(case_of(f"onnxruntime in-process, {name}", seen[f"floor {subject.name} {size}"], "CPU-ms"))
            for front in subject.servers:
                bound = BOUNDS[front][size] if subject.name == "dense" else None
                key = f"{subject.name} {front} {size}"
                case = f"CPU efficiency, {name}, {front}"
                cases.append(case_of(f"{case}, raw tensors", seen[f"tensors {key}"], "", bound=bound, better="higher"))
                cases.append(case_of(f"{case}, ids through the tables", seen[f"ids {key}"], "", better="higher"))
                dearer = [a / b for a, b in zip(seen[f"tensors {key}"], seen[f"ids {key}"], strict=True)]
                bound = IDS_OVER_TENSORS if subject.name == "dense" else None
                cases.append(case_of(f"CPU by ids over raw tensors, {name}, {front}", dearer, "x", bound=bound))
                cases += _against_cases(subject, front, size, seen)
    return cases


def _against_cases(subject: Subject, front: str, size: int, seen: Seen) -> list[Case]:
    if front not in subject.rivals:
        return []
    cases = []
    for kind, what in (("tensors", "raw tensors"), ("ids", "ids through the tables")):
        ours, theirs = (seen[f"{kind} {subject.name} {which}{front} {size}"] for which in ("", "other "))
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        case = f"CPU over that of the other checkout, {subject.name}, {size} candidates, {front}, {what}"
        cases.append(case_of(case, ratios, "x"))
    return cases


def _latency_cases(dense: Subject, seen: Seen) -> list[Case]:
    cases = []
    for front in dense.servers:
        name = f"dense, {LATENCY_CANDIDATES} candidates, {front}"
        cases.append(
            case_of(f"CPU efficiency, {name}, one connection", seen[f"one connection {front}"], "", better="higher")
        )
        cases += [
            case_of(f"p{percent}, {name}, {callers} callers", seen[f"p{percent} {front} {callers}"], "ms")
            for callers in LATENCY_CALLERS
            for percent in (50, 99)
        ]
    return cases


def _rival_cases(rivals: dict[str, Server], seen: Seen) -> list[Case]:
    names = [key.removeprefix("rows ") for key in seen if key.startswith("rows ")]
    what = f"{MOST_CANDIDATES} candidates"
    cases = [
        case_of(f"rows a CPU second, {what}, {name}", seen[f"rows {name}"], "rows/s", better="higher") for name in names
    ]
    for rival in rivals:
        for front in (name for name in names if name not in rivals):
            ratios = [a / b for a, b in zip(seen[f"rows {front}"], seen[f"rows {rival}"], strict=True)]
            case = f"rows a CPU second, moerank's sparse bundle ({front}) over {rival}"
            cases.append(case_of(case, ratios, "x", bound=OURS_OVER_OTHERS, better="higher"))
    return cases


if __name__ == "__main__":
    sys.exit(main())
