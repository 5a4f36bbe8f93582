"""What serving costs on a card: ``python -m benchmarks.gpu_serving [--json]``; the bounds are for one H100.

Layers are timed with arrays on the card, the ranker with copies from and to the host, the bundles through gRPC. Without
a card it says so and ends; ``--cpu-dry-run`` runs every line on the CPU, with tiny sizes, and its figures mean nothing.
``--table FILE`` writes what was measured of layers in the format of ``models/export/cuda_layers.json``.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch

from benchmarks.gpu_models import (
    TINY,
    BoundRun,
    FedRun,
    Layers,
    Sizes,
    a_ranker,
    form_of,
    inputs_of,
    publish_served,
    write,
)
from benchmarks.h2load import Loaded, load
from benchmarks.interleaving import interleaved
from benchmarks.report import Case, NotInstalled, arguments, case_of, finish
from benchmarks.serving_payload import current, payload
from benchmarks.serving_process import RANK, by_metrics, free_ports, serving
from contract.errors import MoerankError, PredictionError
from contract.machine_cores import usable_cores
from models.export_graph.exported_network import Form
from serving.graph.engine import CUDA, provider_options

FORMS: dict[str, Form] = {"moe": "moe", "stacked": "wide", "dense": "dense"}
"""The columns of the table, and our form of each; our wide form has its second layers as one batched product."""
PRECISIONS = {"fp32": tuple(FORMS), "fp16": ("moe", "stacked")}
TABLE_ROWS = (500, 4096, 16384)
KUAIRAND = {"user": 5, "items": 7583, "context": {"tab": 1, "hour": 20}}
JOINED_AT_MOST = 32
"""Tensors that onnxruntime's Concat takes while a CUDA graph is captured; the dense form joins its experts' answers."""
CONNECTIONS_OF_MANY = 16
"""The kernel spreads connections over processes, not calls."""
PAGE_SECONDS = 1.1
"""A little more than a metrics page is kept."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases and print them; exit code 1 if a bound does not hold, 0 without a card."""
    parser = arguments(__doc__)
    parser.add_argument("--cpu-dry-run", action="store_true", help="run every line on the CPU, with tiny sizes")
    parser.add_argument("--kuairand", type=Path, default=Path("runs/kuairand/store"), help="the recipe's store")
    parser.add_argument("--table", type=Path, help="write the measured layers here")
    chosen = parser.parse_args(argv)
    device: Literal["cpu", "cuda"] = "cpu" if chosen.cpu_dry_run else "cuda"
    if device == "cuda" and (reason := no_card()):
        return finish(
            "gpu_serving", [NotInstalled("skipped, for this machine has no card", reason)], as_json=chosen.json
        )
    sizes = TINY if chosen.cpu_dry_run else Sizes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graphs = Layers(folder, sizes)
        cases: list[Case | NotInstalled] = [*layers(graphs, sizes, device), *whole_ranker(folder, sizes, device)]
        cases += served(folder, sizes, device)
        cases += kuairand(chosen.kuairand, sizes, device)
        if chosen.table:
            write_table(chosen.table, graphs, sizes, device)
    if chosen.cpu_dry_run:
        print("a dry run on the CPU: every line ran, the figures mean nothing, and no bound is looked at")
        cases = [case_of(case.case, [case.value], case.unit) if isinstance(case, Case) else case for case in cases]
    return finish("gpu_serving", cases, as_json=chosen.json)


def no_card() -> str:
    """What is missing to measure anything here; empty if nothing is."""
    if CUDA not in ort.get_available_providers():
        return "onnxruntime-gpu, of requirements/gpu.txt"
    return "" if torch.cuda.is_available() else "a CUDA device that torch finds"


def layers(graphs: Layers, sizes: Sizes, device: str) -> list[Case]:
    """The mixture layer alone, against the dense form of the same model."""
    cases = []
    bounds = ((0.20, 0.10), (0.5, None))
    for (experts, rows), (exact, halved) in zip(sizes.layers, bounds, strict=True):
        model = graphs.model(experts)
        form, half, inputs = form_of(model), form_of(model, "fp16"), inputs_of(model, rows)
        paths = [graphs.graph(experts, "dense"), graphs.graph(experts, form), graphs.graph(experts, half, "fp16")]
        # Experts of 8 bits are the operator's, whatever form was chosen.
        paths.append(graphs.graph(experts, "moe", "int8"))
        runs = [BoundRun(path, inputs, device) for path in paths]
        captured = experts <= JOINED_AT_MOST
        runs += [BoundRun(path, inputs, device, capture=True) for path in paths[:3] if captured]
        times = interleaved(runs, sizes.rounds)
        what = f"layer 960-256-128, n={experts}, k=2, {rows} rows, on the card"
        cases.append(case_of(f"{what}: {form} / dense, fp32", (times[1] / times[0]).tolist(), "x", bound=exact))
        cases.append(case_of(f"{what}: {half} / dense, fp16", (times[2] / times[0]).tolist(), "x", bound=halved))
        cases.append(case_of(f"{what}: moe / dense, int8", (times[3] / times[0]).tolist(), "x"))
        cases.append(case_of(f"{what}: {form}, fp32", (1e3 * times[1]).tolist(), "ms"))
        if captured:
            what += ", CUDA graphs"
            cases.append(case_of(f"{what}: {form} / dense, fp32", (times[5] / times[4]).tolist(), "x", bound=exact))
            cases.append(case_of(f"{what}: {half} / dense, fp16", (times[6] / times[4]).tolist(), "x", bound=halved))
            cases.append(case_of(f"{what}: {form}, fp32", (1e3 * times[5]).tolist(), "ms"))
    return cases


def whole_ranker(folder: Path, sizes: Sizes, device: Literal["cpu", "cuda"]) -> list[Case]:
    """One request as a server runs it, copies from and to the host included, against the dense split graph."""
    model = a_ranker(sizes)
    inputs, form = inputs_of(model, sizes.candidates), form_of(model)
    dense, path = (write(model, folder / f"ranker-{name}.onnx", name) for name in ("dense", form))
    tasks = [task.name for task in model.schema.tasks]
    session = ort.InferenceSession(str(dense), providers=provider_options(device, "fp32"))
    feed = {node.name: inputs.arrays()[node.name] for node in session.get_inputs()}
    fed = [FedRun(path, inputs, tasks, device, capture=capture) for capture in (False, True)]
    times = interleaved([lambda: session.run(tasks, feed), *fed], sizes.rounds)
    what = f"ranker, 4 tasks, shared top-2, {sizes.candidates} candidates, copies included: {form} / dense split"
    return [
        case_of(what, (times[1] / times[0]).tolist(), "x", bound=0.6),
        case_of(f"{what}, CUDA graphs", (times[2] / times[0]).tolist(), "x", bound=0.6),
    ]


def served(folder: Path, sizes: Sizes, device: str) -> list[Case]:
    """Rows a second through gRPC on the card, and on all CPU cores of the machine, each as serves it best."""
    store = folder / "store"
    publish_served(store, folder / "work", sizes)
    message = payload(current(store), 1, 1000, sizes.served, {}).rank
    cores = max(2, usable_cores())
    on_card, one = ("--device", device), ("--threads", str(sizes.callers))
    ways: dict[str, dict[str, tuple[str, ...]]] = {
        "CUDA": {
            "1 process": (*on_card, *one),
            "1 process, CUDA graphs": (*on_card, *one, "--cuda-graphs"),
            "4 processes": (*on_card, "--processes", "4", "--threads", str(max(1, sizes.callers // 4))),
        },
        "all CPU cores": {
            f"{cores} processes": ("--processes", str(cores)),
            f"{cores // 2} processes": ("--processes", str(cores // 2)),
        },
    }
    cases, best = [], dict[str, float]()
    for name, own in ways.items():
        for way, settings in own.items() if sizes is not TINY else list(own.items())[:2]:
            seen = under_load(store, message, sizes.calls, sizes.callers, *settings)
            rate = sizes.calls * sizes.served / seen.seconds
            best[name] = max(rate, best.get(name, 0.0))
            what = f"n={sizes.experts}, {sizes.served} candidates, {sizes.callers} callers, {name}, {way}"
            cases.append(case_of(f"rows ranked a second, {what}", [rate], "rows/s", better="higher"))
            cases.append(case_of(f"p50, {what}", [float(np.percentile(seen.latencies_ms, 50))], "ms"))
    ratio = best["CUDA"] / best["all CPU cores"]
    return [
        *cases,
        case_of("rows a second, CUDA / all CPU cores, the best of each", [ratio], "x", bound=2.0, better="higher"),
    ]


def under_load(store: Path, message: bytes, calls: int, callers: int, *flags: str) -> Loaded:
    """What a load generator sees of a server, all of whose answers were good by its metrics page.

    Raises:
        PredictionError: a call did not end with grpc-status 0.
    """
    port, count = free_ports(), by_metrics("nv_inference_request_success_total{")
    connections = min(CONNECTIONS_OF_MANY, callers)
    with serving(store, "--port", str(port), "--metrics-port", str(port + 2), *flags) as server:
        load(server.port, RANK, message, max(callers, calls // 8), callers, connections)
        time.sleep(PAGE_SECONDS)
        before = count(port)
        seen = load(server.port, RANK, message, calls, callers, connections)
        time.sleep(PAGE_SECONDS)
        if (answered := count(port) - before) != calls:
            text = f"{calls - answered} of {calls} calls did not end with grpc-status 0"
            raise PredictionError(text)
    return seen


def kuairand(store: Path, sizes: Sizes, device: str) -> list[Case | NotInstalled]:
    """The recipe's bundle through gRPC."""
    case = "KuaiRand bundle through gRPC"
    try:
        model = current(store)
    except (MoerankError, StopIteration, OSError):
        return [NotInstalled(case, f"a bundle in {store}: moerank run the recipe first")]
    message = payload(model, KUAIRAND["user"], KUAIRAND["items"], 100, KUAIRAND["context"]).rank  # type: ignore[arg-type]
    seen = under_load(store, message, sizes.calls, 32, "--device", device)
    rate = case_of(f"{case}, 100 candidates, 32 callers", [seen.calls / seen.seconds], "answers/s", better="higher")
    return [rate, case_of(f"{case}, p50", [float(np.percentile(seen.latencies_ms, 50))], "ms")]


def write_table(path: Path, graphs: Layers, sizes: Sizes, device: str) -> None:
    """Measure layers in every form and precision, for `models.export.cuda_form`."""
    tiny = sizes is TINY
    kinds = [(experts, narrow) for narrow in (False, True) for experts, _ in sizes.layers][: 1 if tiny else None]
    rows = [
        measured_layer(graphs, kind, count, sizes.rounds, device)
        for kind in kinds
        for count in TABLE_ROWS[: 1 if tiny else None]
    ]
    name = torch.cuda.get_device_name() if device == "cuda" else "a CPU (dry run)"
    about = {"machine": f"{name}, onnxruntime {ort.__version__}", "measured": datetime.now(UTC).date().isoformat()}
    path.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


def measured_layer(graphs: Layers, kind: tuple[int, bool], count: int, rounds: int, device: str) -> dict[str, object]:
    """A row of the table: a layer of so many experts, narrow or not, over `count` rows."""
    experts, narrow = kind
    model = graphs.model(experts, narrow=narrow)
    inputs, times = inputs_of(model, count), {}
    for precision, names in PRECISIONS.items():
        paths = [graphs.graph(experts, FORMS[name], precision, narrow=narrow) for name in names]
        medians = 1e3 * np.median(interleaved([BoundRun(path, inputs, device) for path in paths], rounds), axis=1)
        times[precision] = dict(zip(names, medians.round(4).tolist(), strict=True))
    hidden, outputs = model.config.expert_widths
    sizes = {"inputs": model.width, "hidden": hidden, "outputs": outputs, "experts": experts, "selected": 2}
    return {**sizes, "rows": count, **times}


if __name__ == "__main__":
    sys.exit(main())
