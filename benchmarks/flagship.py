"""What a candidate costs: a bundle of the flagship recipe against one that another revision made of the same model.

Both graphs run in turn in one process with one thread; whole requests by ids go to servers, whose CPU alone counts.
Before that their answers are compared. `--old-checkout` has the old bundle served by its own code.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from benchmarks.h2load import CONNECTIONS
from benchmarks.interleaving import interleaved
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.serving_payload import Payload, payload
from benchmarks.serving_process import RANK, Server, serving
from benchmarks.sparse_graph import CANDIDATES, Graph, Run
from benchmarks.sparse_models import ranker, tiled, write_form, write_tiled
from contract.errors import RequestError
from contract.graph_names import (
    ITEM_ROWS,
    MODEL_FILE,
    ONLINE_FOLDER,
    PREPARED_FILE,
    PREPARED_ROWS_FILE,
    QUANTISED,
)
from contract.inputs import Inputs
from contract.prepared import left_over
from features.online.request_encoder import RankRequest
from models.export.onnx_file import write_onnx
from models.export.parity_sample import generate, sanitised
from models.export_graph.item_shares import PreparedItems
from models.export_graph.serving_graph import ServingGraph
from serving.graph.graph_files import graph_in
from serving.graph.served_model import RankingModel

SIZES = (10, 100, 500)
REQUEST_BOUNDS = {10: 0.5, 100: 0.35, 500: 0.3}
CALLS = {10: 4000, 100: 1500, 500: 500}
CALLERS, ITEMS = 8, 7000
_PRODUCTS = ("Gemm", "MatMul", "FusedGemm", "QGemm", "MatMulIntegerToFloat")
_TOLERANCE = {"fp32": 1e-4, "int8": 0.05}
_PROFILED = 60


class Served(NamedTuple):
    """A bundle's model, and the graph with the inputs that answer the benchmark's request."""

    model: RankingModel
    path: Path
    feed: dict[str, Any]

    @classmethod
    def of(cls, bundle: Path, request: RankRequest) -> "Served":
        """Open a bundle, and encode the request for the graph that answers it."""
        model = RankingModel.open(bundle)
        encoded = model.encode(request)
        feed: dict[str, Any] = dict(encoded.inputs.arrays())
        if encoded.rows_of and model.graphs.prepared is not None:
            feed |= model.graphs.prepared.arrays(encoded)
        return cls(model, graph_in(bundle, PREPARED_FILE if encoded.rows_of else MODEL_FILE), feed)

    def session(self, *, profiled: Path | None = None) -> onnxruntime.InferenceSession:
        """One thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if profiled is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profiled)
        return onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def runner(self, session: onnxruntime.InferenceSession) -> Run:
        """One run, answering the values of all tasks [T, N]."""
        tasks = [task.name for task in self.model.bundle.schema.tasks]
        feed = {node.name: self.feed[node.name] for node in session.get_inputs()}
        return lambda: np.stack(session.run(tasks, feed))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases and print them; exit code 1 if a bound does not hold."""
    parser = arguments(__doc__)
    parser.add_argument("--old", type=Path, required=True, help="STORE/MODEL/VERSION that another revision exported")
    parser.add_argument("--new", type=Path, required=True, help="STORE/MODEL/VERSION of the same model, exported now")
    parser.add_argument("--int8", type=Path, help="the same with int8 experts; --new is then the one without")
    parser.add_argument("--old-checkout", type=Path, help="the other revision's directory, with its .venv")
    parser.add_argument("--rounds", type=int, default=100, help="runs of each graph (default 100)")
    parser.add_argument(
        "--beside",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("OLD", "NEW"),
        help="two bundles of another model, which must not have become slower; may be given again",
    )
    parser.add_argument("--no-servers", action="store_true", help="the graphs in process alone")
    chosen = parser.parse_args(argv)
    request = RankRequest(1, list(range(CANDIDATES)), {"tab": 1, "hour": 12})
    with tempfile.TemporaryDirectory() as name:
        cases = list(graphs(Path(name), chosen, request))
        cases += own_ranker(Path(name), chosen.rounds)
    cases.append(case_of("bytes of an item's prepared row, new", [bytes_an_item(chosen.new)], ""))
    if chosen.int8:
        cases.append(case_of("bytes of an item's prepared row, int8", [bytes_an_item(chosen.int8)], ""))
    for old, new in chosen.beside:
        cases += others(old, new, chosen.rounds)
    if not chosen.no_servers:
        cases += servers(chosen)
    return finish("flagship", cases, as_json=chosen.json)


def graphs(folder: Path, chosen: Any, request: RankRequest) -> Iterator[Case]:
    """The graphs in process, ids already encoded, and where their time goes."""
    bundles = {"old": chosen.old, "new": chosen.new} | ({"int8": chosen.int8} if chosen.int8 else {})
    served = {name: Served.of(bundle, request) for name, bundle in bundles.items()}
    runs = {name: each.runner(each.session()) for name, each in served.items()}
    expected = runs["old"]()
    for name, run in runs.items():
        worst = float(np.abs(run() - expected).max())
        if not worst <= _TOLERANCE["int8" if name == "int8" else "fp32"]:
            message = f"{served[name].path} answers up to {worst:.2e} away from the old graph; are they one model?"
            raise SystemExit(message)
    times = dict(zip(runs, interleaved(list(runs.values()), chosen.rounds, time.process_time), strict=True))
    for name, bound in (("new", 0.30), ("int8", 0.20)):
        if name in times:
            ratios = (times[name] / times["old"]).tolist()
            yield case_of(f"graph in process, {CANDIDATES} candidates, {name} over old", ratios, "x", bound=bound)
    for name, seconds in times.items():
        yield case_of(f"graph in process, {CANDIDATES} candidates, {name}", (1e3 * seconds).tolist(), "CPU-ms")
    for name, each in served.items():
        shares = profile(each, folder)
        dearest = sorted(shares.items(), key=lambda pair: -pair[1])[:10]
        print(f"{name}: " + ", ".join(f"{operator} {share:.3f}" for operator, share in dearest))
        products = sum(shares.get(operator, 0.0) for operator in _PRODUCTS)
        least = 0.6 if name == "new" else None
        yield case_of(f"share of products in the profile, {name}", [products], "", bound=least, better="higher")


def profile(served: Served, folder: Path) -> dict[str, float]:
    """Each operator's share of the nodes' shortest times, which nothing interrupted."""
    session = served.session(profiled=folder / "profile")
    run = served.runner(session)
    for _ in range(_PROFILED):
        run()
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[str, list[int]] = {}
    operators: dict[str, str] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            nodes.setdefault(event["name"], []).append(event["dur"])
            operators[event["name"]] = event["args"]["op_name"]
    shares = dict.fromkeys(operators.values(), 0.0)
    for name, durations in nodes.items():
        shares[operators[name]] += float(min(durations))
    total = sum(shares.values())
    return {name: value / total for name, value in shares.items()}


def bytes_an_item(bundle: Path) -> float:
    """What a prepared row of an item takes in memory; 0 where none is prepared."""
    prepared = RankingModel.open(bundle).graphs.prepared
    if prepared is None or prepared.shares is None:
        rows = bundle / PREPARED_ROWS_FILE
        keys = np.load(bundle / ONLINE_FOLDER / "item" / "keys.npy", mmap_mode="r")
        return rows.stat().st_size / (len(keys) + 1) if rows.is_file() else 0.0
    return float(prepared.shares.tables["item"].bytes_a_row)


def others(old: Path, new: Path, rounds: int) -> Iterator[Case]:
    """Another model's requests in process, look-ups and all, at few and many candidates."""
    models = [RankingModel.open(bundle) for bundle in (old, new)]
    for size in (1, 10, 100):
        request = _known_request(models[1], size)
        predictions = [model.rank(request).predictions for model in models]
        int8 = QUANTISED in models[1].engine.properties
        for task, values in predictions[0].items():
            np.testing.assert_allclose(predictions[1][task], values, atol=_TOLERANCE["int8" if int8 else "fp32"])
        runs = [partial(model.rank, request) for model in models]
        before, now = interleaved(runs, rounds, time.process_time)
        name = f"{models[1].name}{' in int8' if int8 else ''}, {size} candidates in process, new over old"
        yield case_of(name, (now / before).tolist(), "x", bound=1.05)


def _known_request(model: RankingModel, size: int) -> RankRequest:
    """A request with ids of the type that the model's data has: numbers, or the shop's ``s1``."""
    request = RankRequest(1, list(range(1, size + 1)))
    try:
        model.encode(request)
    except RequestError:
        return replace(request, user="s1")
    return request


def own_ranker(folder: Path, rounds: int) -> list[Case]:
    """The sparse graph benchmark's ranker, all items prepared, against its dense tiled graph."""
    model = ranker(2, "shared", "all")
    one = sanitised(generate(model.schema, 1, CANDIDATES, np.random.default_rng(0)), model.schema)
    items = PreparedItems(frozenset(spec.name for spec in model.schema.candidate.ids), one.candidate)
    path = folder / "prepared" / "own.onnx"
    path.parent.mkdir()
    write_onnx(ServingGraph(model, "sparse", items), items.lean(model.schema), path, {}, prepared=True)
    rows = np.arange(CANDIDATES)
    lean = Inputs(one.request, left_over(one.candidate, model.schema.candidate, items.names))
    session = onnxruntime.InferenceSession(str(path), _one_thread(), providers=["CPUExecutionProvider"])
    arrays: dict[str, Any] = {**lean.arrays(), ITEM_ROWS: rows}
    feed = {node.name: arrays[node.name] for node in session.get_inputs()}
    tasks = [task.name for task in model.schema.tasks]
    dense = Graph(write_tiled(model, folder / "tiled.onnx"), tiled(one)).runner()
    sparse = Graph(write_form(model, folder / "sparse.onnx", "sparse"), one).runner()
    runs: list[Callable[[], Any]] = [dense, sparse, lambda: np.stack(session.run(tasks, feed))]
    expected = dense()
    for run in runs:
        np.testing.assert_allclose(run(), expected, atol=1e-4)
    times = interleaved(runs, rounds, time.process_time)
    name = f"ranker of 30 ids, 960-256-128, {CANDIDATES} candidates, shared top-2"
    return [
        case_of(f"{name}, items prepared, over dense tiled", (times[2] / times[0]).tolist(), "x", bound=0.12),
        case_of(f"{name}, over dense tiled", (times[1] / times[0]).tolist(), "x"),
    ]


def servers(chosen: Any) -> Iterator[Case]:
    """Whole requests by ids through gRPC; of the server's CPU alone."""
    front = "native" if find_spec("pygrpc_native") else "grpcio"
    payloads = {size: payload(RankingModel.open(chosen.new), 1, ITEMS, size, {"tab": 1, "hour": 12}) for size in SIZES}
    bundles = {"new": chosen.new} | ({"int8": chosen.int8} if chosen.int8 else {})
    with ExitStack() as running:
        old = running.enter_context(_server(chosen.old, front, chosen.old_checkout))
        for kind, bundle in bundles.items():
            server = running.enter_context(_server(bundle, front, None))
            for size, each in payloads.items():
                ratios, rates = _rounds(old, server, each, size)
                name = f"whole request by ids, {size} candidates, {front}"
                yield case_of(f"{name}, {kind} over old", ratios, "x", bound=REQUEST_BOUNDS[size])
                bound = 250_000.0 if size == CANDIDATES else None
                name = f"candidates a CPU second, {size}, {front}, {kind}"
                yield case_of(name, rates, "", bound=bound, better="higher")


def _rounds(old: Server, new: Server, each: Payload, size: int) -> tuple[list[float], list[float]]:
    ratios, rates = [], []
    for round_ in range(-1, 5):
        _, before = old.loaded(RANK, each.rank, CALLS[size] // 5, CALLERS, CONNECTIONS)
        _, now = new.loaded(RANK, each.rank, CALLS[size] // 5, CALLERS, CONNECTIONS)
        if round_ >= 0:
            ratios.append(now / before)
            rates.append(size / now)
    return ratios, rates


def _server(bundle: Path, front: str, checkout: Path | None) -> Any:
    flags = ("--front", front, "--models", f"{bundle.parent.name}@{bundle.name}")
    return serving(bundle.parent.parent, *flags, checkout=checkout)


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


if __name__ == "__main__":
    sys.exit(main())
