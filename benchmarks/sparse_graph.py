"""What the sparse graph costs against the dense tiled graph of the same model, under onnxruntime with one thread.

Every round runs each graph of a case once, so that what slows the machine slows all; a case's value is the median of
the rounds' ratios. Before that the answers of all graphs of a case are compared.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.interleaving import Times, interleaved
from benchmarks.report import Case, arguments, case_of, finish
from benchmarks.sparse_models import flops, joined_requests, layer, ranker, tiled, write_form, write_packed, write_tiled
from benchmarks.sparse_rechub import rechub_graph
from benchmarks.sparse_trained import trained
from contract.graph_names import GATE_OUTPUT, REQUEST_OF
from contract.inputs import Inputs
from models.export.activation_ranges import measure_ranges
from models.export.parity_sample import generate, sanitised
from models.export.quantise import quantise_experts
from models.export.table_precision import store_tables
from models.export_graph.exported_network import Form
from models.ranker import Ranker

CANDIDATES = 500
_MATMUL = 1024
_TOLERANCE = 1e-4
_INT8_TOLERANCE = 0.1

Run = Callable[[], NDArray[np.float32]]


class Graph(NamedTuple):
    """A graph file with the inputs that it is measured on, and how far its answers may lie from the first's."""

    path: Path
    inputs: Inputs
    tolerance: float = _TOLERANCE
    of_request: NDArray[np.int64] | None = None

    def runner(self) -> Run:
        """One run, answering the values of all tasks [T, N]."""
        session = _session(self.path)
        arrays = {**self.inputs.arrays(), REQUEST_OF: self.of_request}
        feed = {node.name: arrays[node.name] for node in session.get_inputs()}
        tasks = [node.name for node in session.get_outputs() if not node.name.startswith(GATE_OUTPUT)]
        return lambda: np.stack(session.run(tasks, feed))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases and print them; exit code 1 if a bound does not hold."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="runs of each graph (default 60)")
    parser.add_argument("--project", type=Path, default=Path("runs/kuairand"), help="a trained project to measure too")
    chosen = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder, rounds = Path(name), chosen.rounds
        cases = [*layers(folder, rounds), *rankers(folder, rounds), *users(folder, rounds)]
        cases += project(folder, chosen.project, rounds)
    return finish("sparse_graph", cases, as_json=chosen.json)


def layers(folder: Path, rounds: int) -> list[Case]:
    """The mixture layer alone."""
    cases = []
    for experts, rows, bound, what in ((64, 256, 0.2, "one gate"), (8, 1024, 0.4, "1 task")):
        model = layer(experts)
        inputs = _inputs(model, rows)
        dense = Graph(write_tiled(model, folder / f"layer{experts}-tiled.onnx"), inputs)
        sparse = Graph(write_form(model, folder / f"layer{experts}-sparse.onnx", "sparse"), inputs)
        times = measure([dense, sparse], rounds)
        cases.append(_ratio(f"MoE layer, n={experts}, k=2, {what}, {rows} rows", times, 1, bound))
    return cases


def rankers(folder: Path, rounds: int) -> list[Case]:
    """The whole ranker for one request."""
    cases = []
    model = ranker(2, "shared", "all")
    single, many = _pair(model, CANDIDATES)
    sparse = write_form(model, folder / "shared.onnx", "sparse")
    int8, tables = folder / "shared-int8.onnx", folder / "shared-tables.onnx"
    quantise_experts(sparse, int8, measure_ranges(sparse, [single.arrays()]))
    store_tables(sparse, tables, "int8")
    split = write_form(model, folder / "split.onnx", "dense")
    graphs = [
        Graph(write_tiled(model, folder / "tiled.onnx"), many),
        Graph(sparse, single),
        Graph(int8, single, _INT8_TOLERANCE),
        Graph(split, single),
        Graph(tables, single, _INT8_TOLERANCE),
    ]
    runs = [*_agreeing(graphs), _matmul(folder / "matmul.onnx")]
    extra = rechub_graph(folder, CANDIDATES)
    times = interleaved([*runs, extra] if extra else runs, rounds)
    name = f"ranker, {CANDIDATES} candidates, "
    cases.append(_ratio(name + "shared top-2 + split", times, 1, 0.33))
    cases += _other_gate(folder, name + "static 4 of 8 + split", ranker(4, "shared", "static"), "static", 0.4, rounds)
    cases += _other_gate(folder, name + "per-task top-2 + split", ranker(2, "per_task", "all"), "sparse", 0.65, rounds)
    cases.append(_ratio(name + "shared top-2 + split + int8 experts", times, 2, 0.22))
    cases.append(_ratio(name + "dense split", times, 3))
    cases.append(_ratio(name + "shared top-2 + split + int8 tables", times, 4))
    rate = CANDIDATES * flops(model) / times[3] / (2.0 * _MATMUL**3 / times[5])
    cases.append(case_of("dense split, share of the large-matmul rate", rate.tolist(), "", bound=0.75, better="higher"))
    cases.append(case_of("large matmul", (2e-9 * _MATMUL**3 / times[5]).tolist(), "GFLOP/s", better="higher"))
    cases.append(case_of(name + "dense tiled", (1e3 * times[0]).tolist(), "ms"))
    if extra:
        cases.append(_ratio(name + "shared top-2 + split, against torch-rechub's graph", times[[6, 1]], 1))
    return cases


def users(folder: Path, rounds: int) -> list[Case]:
    """Several users' requests in one run of the packed graph, against a run of the plain graph for each."""
    model = ranker(2, "shared", "all")
    plain = write_form(model, folder / "plain.onnx", "sparse")
    packed = write_packed(model, folder / "packed.onnx", "sparse")
    cases = []
    for count, rows in ((16, 10), (8, 60)):
        requests = [_inputs(model, rows, seed) for seed in range(count)]
        alone = [Graph(plain, each).runner() for each in requests]
        together = Graph(packed, joined_requests(requests), of_request=np.repeat(np.arange(count), rows))
        runs: list[Run] = [partial(_in_turn, alone), together.runner()]
        _require_equal(packed, runs[1](), runs[0](), _TOLERANCE)
        cases.append(
            _ratio(f"{count} users of {rows} candidates packed, against a run each", interleaved(runs, rounds), 1)
        )
    return cases


def _in_turn(runs: Sequence[Run]) -> NDArray[np.float32]:
    return np.concatenate([run() for run in runs], axis=1)


def project(folder: Path, root: Path, rounds: int) -> list[Case]:
    """Trained rankers with the routing that they learned, in the form that their export chooses."""
    cases = []
    for gate, model, inputs, form, union in trained(root, CANDIDATES):
        dense = Graph(write_tiled(model, folder / f"{gate}-tiled.onnx"), tiled(inputs))
        ours = Graph(write_form(model, folder / f"{gate}.onnx", form), inputs)
        times = measure([dense, ours], rounds)
        name = f"{root.name}, {gate}, {form} + split, union/n {union:.2f}, {inputs.candidate.rows} candidates"
        cases.append(_ratio(name, times, 1))
    return cases


def measure(graphs: Sequence[Graph], rounds: int) -> Times:
    """Seconds [graphs, rounds] of graphs whose answers agree."""
    return interleaved(_agreeing(graphs), rounds)


def _agreeing(graphs: Sequence[Graph]) -> list[Run]:
    runs = [graph.runner() for graph in graphs]
    expected = runs[0]()
    for graph, run in zip(graphs, runs, strict=True):
        _require_equal(graph.path, run(), expected, graph.tolerance)
    return runs


def _require_equal(path: Path, actual: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float) -> None:
    worst = float(np.abs(actual - expected).max())
    if not worst <= tolerance:
        message = f"{path.name} answers up to {worst:.2e} away from the graph that it is compared with"
        raise SystemExit(message)


def _other_gate(folder: Path, name: str, model: Ranker, form: Form, bound: float, rounds: int) -> list[Case]:
    single, many = _pair(model, CANDIDATES)
    dense = Graph(write_tiled(model, folder / "other-tiled.onnx"), many)
    times = measure([dense, Graph(write_form(model, folder / "other.onnx", form), single)], rounds)
    return [_ratio(name, times, 1, bound)]


def _ratio(name: str, times: Times, place: int, bound: float | None = None) -> Case:
    return case_of(name, (times[place] / times[0]).tolist(), "x", bound=bound)


def _inputs(model: Ranker, rows: int, seed: int = 0) -> Inputs:
    return sanitised(generate(model.schema, 1, rows, np.random.default_rng(seed)), model.schema)


def _pair(model: Ranker, rows: int) -> tuple[Inputs, Inputs]:
    single = _inputs(model, rows)
    return single, tiled(single)


def _matmul(path: Path) -> Run:
    """One product of two large square matrices, the second constant as a layer's weights are."""
    square = [_MATMUL, _MATMUL]
    values = np.random.default_rng(0).normal(size=square).astype(np.float32)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "matmul",
        [info("x", onnx.TensorProto.FLOAT, square)],
        [info("y", onnx.TensorProto.FLOAT, square)],
        [onnx.numpy_helper.from_array(values, "w")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    session = _session(path)
    return lambda: np.asarray(session.run(None, {"x": values})[0])


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    sys.exit(main())
