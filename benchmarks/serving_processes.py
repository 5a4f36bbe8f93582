"""What more processes and cores bring: ``python -m benchmarks.serving_processes [--json]``, answers a second.

One process held to one core against as many processes as cores, and against one process with as many threads; the
servers are loaded in turns by h2load, which on a machine of few cores takes its part of them. h2load does not look at
grpc-status: each server must give the same answers beforehand, and count as answered afterwards what h2load counted,
with no failure. ``--curve`` measures every power of two up to the cores.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np

from benchmarks.h2load import Rate, rate
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_graph import ITEMS
from benchmarks.serving_payload import current, payload
from benchmarks.serving_process import RANK, Server, by_metrics, free_ports, serving
from benchmarks.serving_split import publish_sparse
from contract.errors import PredictionError
from serving.stubs.moerank.v1 import ranking_pb2

SCALING = 1.85
"""Of two cores over one."""
SIZES = (100, 500)
CALLERS, CONNECTIONS, SECONDS = 32, 16, 2
PAGE_SECONDS = 1.1
"""A little more than a metrics page is kept."""
ANSWERED = by_metrics("nv_inference_request_success_total{")
FAILED = by_metrics("moerank_errors_total{")
HUNG_UP = by_metrics("moerank_errors_total{", 'status="CANCELLED"')
"""Calls under way when h2load's time is over."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds, all servers in turns [%(default)s]")
    parser.add_argument("--front", default="grpcio", choices=("grpcio", "native"), help="of all servers [%(default)s]")
    parser.add_argument("--curve", action="store_true", help="every power of two up to the cores")
    chosen = parser.parse_args(argv)
    cores = sorted(os.sched_getaffinity(0))
    counts = [2**power for power in range(len(cores).bit_length()) if 2**power <= len(cores)]
    if not chosen.curve:
        counts = [1, len(cores)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        cases = _measured(Path(name), running, chosen.front, chosen.rounds, counts, cores)
    return finish("serving_processes", cases, as_json=chosen.json)


def _measured(
    folder: Path, running: ExitStack, front: str, rounds: int, counts: Sequence[int], cores: Sequence[int]
) -> list[Case]:
    publish_sparse(folder / "store", folder / "work", folder / "tiled.onnx")
    store, most = folder / "store", counts[-1]
    servers: dict[str, Server] = {}
    for count in counts:
        with held_to(cores[:count]):
            servers[f"{count} processes"] = running.enter_context(_server(store, front, count, 1))
    servers["pinned"] = running.enter_context(_server(store, front, most, 1, "--pin-cores"))
    servers["threads"] = running.enter_context(_server(store, front, 1, most))
    model = current(store)
    messages = {size: payload(model, 1, ITEMS, size, {}).rank for size in SIZES}
    for message in messages.values():
        require_equal_answers(servers, message)
    rates: dict[tuple[str, int], list[Rate]] = defaultdict(list)
    for _ in range(rounds):
        for size, message in messages.items():
            for name, server in servers.items():
                rates[name, size].append(rate(server.port, RANK, message, SECONDS, CALLERS, CONNECTIONS))
    time.sleep(PAGE_SECONDS)
    for name, server in servers.items():
        seen = sum(one.calls * SECONDS for size in SIZES for one in rates[name, size])
        require_answered(name, round(seen), ANSWERED(server.port), FAILED(server.port) - HUNG_UP(server.port))
    return [case for size in SIZES for case in _cases(rates, size, counts, len(cores))]


def _server(store: Path, front: str, processes: int, threads: int, *more: str) -> AbstractContextManager[Server]:
    port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(port + 2))
    flags = ("--front", front, "--processes", str(processes), "--threads", str(threads), *more)
    return serving(store, *ports, *flags)


def require_equal_answers(servers: Mapping[str, Server], message: bytes) -> None:
    """Ask each server once, and compare what it answers with what the first one does.

    Raises:
        PredictionError: an answer is another, or none.
    """
    expected: dict[str, list[float]] = {}
    for name, server in servers.items():
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            ask = channel.unary_unary(
                RANK, request_serializer=bytes, response_deserializer=ranking_pb2.RankResponse.FromString
            )
            answer = ask(message, timeout=30)
        found = {task: list(values.values) for task, values in answer.predictions.items()}
        expected = expected or found
        alike = found.keys() == expected.keys() and all(
            len(found[task]) == len(expected[task]) and np.allclose(found[task], expected[task], atol=1e-5)
            for task in found
        )
        if not found or not alike:
            text = f"the server of {name} answers otherwise than the first"
            raise PredictionError(text)


def require_answered(name: str, seen: int, answered: int, failed: int) -> None:
    """Compare what the load generator saw with what the server counted; that counts its warming up as well.

    Raises:
        PredictionError: the server answered fewer, or any call failed.
    """
    if failed or answered < seen:
        text = f"{name}: h2load saw {seen} calls end, of which the server answered {answered}, and {failed} failed"
        raise PredictionError(text)


def _cases(rates: dict[tuple[str, int], list[Rate]], size: int, counts: Sequence[int], cores: int) -> Iterator[Case]:
    alone = rates["1 processes", size]
    for count in counts:
        each = rates[f"{count} processes", size]
        name = f"{size} candidates, processes: {count}"
        yield case_of(name, [one.calls for one in each], "answers/s", better="higher")
        if count > 1:
            yield from _scaling(f"{size} candidates, {count} over 1", alone, each, count, cores)
    threads, most = rates["threads", size], counts[-1]
    for way, name in ((f"{most} processes", ""), ("pinned", ", each on cores of its own,")):
        ratios = [a.calls / b.calls for a, b in zip(rates[way, size], threads, strict=True)]
        what = f"{size} candidates, {most} processes{name} over one with {most} threads"
        yield case_of(what, ratios, "x", bound=1.0, better="higher")


def _scaling(name: str, alone: Sequence[Rate], each: Sequence[Rate], count: int, cores: int) -> Iterator[Case]:
    """The ratio on the clock; where all cores serve, also with the cores given back that the generator took."""
    bound = SCALING if count == 2 else None  # noqa: PLR2004 the bound is that of two
    ratios = [b.calls / a.calls for a, b in zip(alone, each, strict=True)]
    yield case_of(f"{name}, the generator on the same cores", ratios, "x", better="higher")
    if count == cores:
        given = [ratio * cores / (cores - b.client_cores) for ratio, b in zip(ratios, each, strict=True)]
        yield case_of(f"{name}, the generator's part of the cores given back", given, "x", bound=bound, better="higher")
        yield case_of(f"{name}, cores that the generator took", [b.client_cores for b in each], "cores", better="lower")


@contextmanager
def held_to(cores: Sequence[int]) -> Iterator[None]:
    """What is started meanwhile runs on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


if __name__ == "__main__":
    sys.exit(main())
