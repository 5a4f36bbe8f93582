"""What more processes and cores bring: ``python -m benchmarks.serving_processes [--json]``, answers a second.

One process held to one core against as many processes as cores, and against one process with as many threads; the
servers are loaded in turns by h2load, which on a machine of few cores takes its part of them. ``--curve`` measures
every power of two up to the cores.
"""

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.h2load import Rate, rate
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_graph import ITEMS
from benchmarks.serving_payload import current, payload
from benchmarks.serving_process import RANK, Server, serving
from benchmarks.serving_split import publish_sparse

SCALING = 1.85
"""Of two cores over one."""
SIZES = (100, 500)
CALLERS, CONNECTIONS, SECONDS = 32, 16, 2


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
            flags = ("--front", front, "--processes", str(count), "--threads", "1")
            servers[f"{count} processes"] = running.enter_context(serving(store, *flags))
    flags = ("--front", front, "--processes", "1", "--threads", str(most))
    servers["threads"] = running.enter_context(serving(store, *flags))
    model = current(store)
    messages = {size: payload(model, 1, ITEMS, size, {}).rank for size in SIZES}
    rates: dict[tuple[str, int], list[Rate]] = defaultdict(list)
    for _ in range(rounds):
        for size, message in messages.items():
            for name, server in servers.items():
                rates[name, size].append(rate(server.port, RANK, message, SECONDS, CALLERS, CONNECTIONS))
    return [case for size in SIZES for case in _cases(rates, size, counts, len(cores))]


def _cases(rates: dict[tuple[str, int], list[Rate]], size: int, counts: Sequence[int], cores: int) -> Iterator[Case]:
    alone = rates["1 processes", size]
    for count in counts:
        each = rates[f"{count} processes", size]
        name = f"{size} candidates, processes: {count}"
        yield case_of(name, [one.calls for one in each], "answers/s", better="higher")
        if count > 1:
            yield from _scaling(f"{size} candidates, {count} over 1", alone, each, count, cores)
    threads, most = rates["threads", size], counts[-1]
    ratios = [a.calls / b.calls for a, b in zip(rates[f"{most} processes", size], threads, strict=True)]
    name = f"{size} candidates, {most} processes over one with {most} threads"
    yield case_of(name, ratios, "x", bound=1.0, better="higher")


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
