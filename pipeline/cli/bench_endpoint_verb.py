"""The verb `bench-endpoint`: load a running server and report throughput, latency and statuses."""

import json
import multiprocessing
import random
from argparse import ArgumentParser, Namespace
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.errors import ConfigError
from pipeline.cli.request_arguments import context_from
from pipeline.cli.server_address import add_connection, credentials_from, metadata_from
from pipeline.cli.verb import Verb, add_json, respond

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from serving.client.load import LoadReport

GENERATED = 256
CONNECTIONS = 64
"""A server of several processes answers a connection with one of them: so many reach all of up to a dozen."""
START_SECONDS = 60.0
BUSY = 0.9
"""Beyond so many cores the generator, which is one Python thread, may be what limits the throughput."""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="HOST:PORT", help="where the server listens")
    parser.add_argument("--callers", type=int, default=8, help="calls at once [%(default)s]")
    parser.add_argument(
        "--processes", type=int, default=1, help="that share the callers; see client_cores [%(default)s]"
    )
    parser.add_argument("--connections", type=int, help=f"that share the callers [one a caller, {CONNECTIONS} at most]")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long [%(default)s]")
    parser.add_argument("--requests", type=Path, metavar="FILE", help="one JSON object a line: user, items, context")
    parser.add_argument("--users", default="1:1000", metavar="LOW:HIGH", help="else: users of that range [%(default)s]")
    parser.add_argument("--items", default="1:1000", metavar="LOW:HIGH", help="and items of that range [%(default)s]")
    parser.add_argument("--candidates", type=int, default=100, help="items a request [%(default)s]")
    parser.add_argument("--context", action="append", default=[], metavar="NAME=VALUE", help="a feature of the moment")
    parser.add_argument("--model", default="", help="which model, where the server has several")
    add_connection(parser)
    add_json(parser)


def _bench(args: Namespace) -> int:
    from serving.client.load import LoadReport  # noqa: PLC0415 - keeps `moerank --help` fast

    if not 1 <= args.processes <= max(args.callers, 1):
        message = f"--processes is {args.processes}; allowed are 1 to {args.callers}, the number of --callers"
        raise ConfigError(message)
    requests = _requests(args)
    callers, connections = (_shares(count, args.processes) for count in (args.callers, _connections(args)))
    # Each begins elsewhere among the requests.
    turns = [requests[place * len(requests) // len(callers) :] + requests for place in range(len(callers))]
    if len(callers) == 1:
        report = _load(args, requests, callers[0], connections[0])
    else:
        context = multiprocessing.get_context("spawn")
        begin = context.Barrier(len(callers), timeout=START_SECONDS)
        with ProcessPoolExecutor(len(callers), context, _ready, (begin,)) as pool:
            report = LoadReport.joined(list(pool.map(_load, repeat(args), turns, callers, connections)))
    respond(args, _as_json(report), _lines(report))
    return 0 if report.statuses.get("OK") else 1


def _connections(args: Namespace) -> int:
    if args.connections is None:
        return max(min(args.callers, CONNECTIONS), args.processes)
    if not args.processes <= args.connections <= args.callers:
        allowed = f"{args.processes}, the number of --processes, to {args.callers}, that of --callers"
        message = f"--connections is {args.connections}; allowed are {allowed}"
        raise ConfigError(message)
    return int(args.connections)


def _shares(count: int, processes: int) -> list[int]:
    return [len(range(place, count, processes)) for place in range(processes)]


def _ready(begin: "Barrier") -> None:
    """Have all load the server at the same time, each with its own callers."""
    import serving.client.load  # noqa: F401, PLC0415 - before the time that is measured

    begin.wait()


def _load(args: Namespace, requests: list[bytes], callers: int, connections: int) -> "LoadReport":
    from serving.client.load import LoadPlan, run_load  # noqa: PLC0415 - keeps `moerank --help` fast

    plan = LoadPlan(args.target, requests, callers, connections, args.seconds, metadata=metadata_from(args))
    return run_load(plan, credentials_from(args))


def _requests(args: Namespace) -> list[bytes]:
    from serving.client.client_response import Query  # noqa: PLC0415 - keeps `moerank --help` fast

    if args.requests is not None:
        queries = [Query(**_object(line, place, args.requests)) for place, line in enumerate(_rows(args.requests), 1)]
    else:
        draw = random.Random(0)  # noqa: S311 - requests are drawn, not secrets
        users, items = _range("--users", args.users), _range("--items", args.items)
        context = context_from(args.context)
        size = min(args.candidates, len(items))
        queries = [Query(draw.choice(users), draw.sample(items, size), context) for _ in range(GENERATED)]
    return [query.message(args.model, 0).SerializeToString() for query in queries]


def _rows(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        message = f"--requests {path} cannot be read: {error.strerror}"
        raise ConfigError(message) from error


def _object(line: str, place: int, path: Path) -> dict[str, Any]:
    allowed = {"user", "items", "context", "user_features", "item_features", "top_k"}
    try:
        value = json.loads(line)
    except ValueError as error:
        message = f"{path}, line {place} is not JSON: {error}"
        raise ConfigError(message) from error
    if not isinstance(value, dict) or not {"user", "items"} <= value.keys() <= allowed:
        message = f"{path}, line {place}: write an object with user and items; allowed are {', '.join(sorted(allowed))}"
        raise ConfigError(message)
    return value


def _range(flag: str, text: str) -> range:
    low, colon, high = text.partition(":")
    if not colon or not low.isdecimal() or not high.isdecimal() or int(low) > int(high):
        message = f"{flag} {text!r}: write LOW:HIGH, such as 1:1000"
        raise ConfigError(message)
    return range(int(low), int(high) + 1)


def _as_json(report: "LoadReport") -> dict[str, Any]:
    return {
        "seconds": report.seconds,
        "calls_per_second": report.calls_per_second,
        "p50_ms": report.percentile(50),
        "p99_ms": report.percentile(99),
        "statuses": report.statuses,
        "client_cores": report.client_cores,
    }


def _lines(report: "LoadReport") -> list[str]:
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(report.statuses.items())) or "none"
    lines = [
        f"calls: {statuses}",
        f"answered: {report.calls_per_second:.1f} a second over {report.seconds:.1f} s",
        f"latency: p50 {report.percentile(50):.2f} ms, p99 {report.percentile(99):.2f} ms",
    ]
    if report.client_cores > BUSY:
        cores = f"{report.client_cores:.2f}"
        lines.append(f"the load generator used {cores} of a core: raise --processes, the server may do more")
    return lines


VERB = Verb(
    "bench-endpoint",
    "load a running server and report throughput, latency and statuses",
    "moerank bench-endpoint 127.0.0.1:50051 --callers 32 --candidates 100 --users 1:943 --items 1:1682",
    _arguments,
    _bench,
)
