"""The layers of experts and towers in a finished graph, and between which values 256 steps serve their inputs best.

Few values lie far out. Steps that reach them all are coarse for all others, so the range is the one that moves values
of real rows least, squared; what lies beyond counts as its end.

Source: Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference", section 3.

Shape legend: I inputs, O outputs of a layer.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxscript import ir

from contract.sha256 import sha256_of_bytes

_LAYERS = re.compile(
    r"^(network\.levels\.\d+\.(mixture|static)|towers)\.(?!members\.\d+\.heads\.)(?!.*\.request\.)(?!.*weight_request)"
)


STEPS = 255
_SHARES = np.linspace(0.3, 1.0, 15)
"""Ranges that are tried, as shares of the widest."""
_SAMPLED = 16_384
"""Values of a run that a range is chosen by."""


class Layer(NamedTuple):
    """An expert's or a tower's product: its node, its weights [I, O] and their name in the graph."""

    node: ir.Node
    weight_IO: NDArray[np.float32]
    name: str

    @property
    def key(self) -> str:
        """The same for the layer of these weights in any graph of a model; its name is the graph's own numbering."""
        return sha256_of_bytes(np.ascontiguousarray(self.weight_IO).tobytes())

    @property
    def source(self) -> ir.Value:
        """The matrix that it reads; if it reads picked rows, the matrix that they were picked from."""
        x = self.node.inputs[0]
        assert x is not None  # noqa: S101 a product has an input
        producer = x.producer()
        picked = producer is not None and producer.op_type == "Gather" and producer.inputs[0] is not None
        return producer.inputs[0] if picked else x  # type: ignore[union-attr,return-value] # `picked` says so


class Range(NamedTuple):
    """Between which values the steps of a layer's input lie; 0 is one of them."""

    low: float
    high: float

    def steps(self) -> tuple[float, int]:
        """The size of a step, and the number of the one that is 0."""
        size = (self.high - self.low) / STEPS or 1.0
        return size, round(-self.low / size)


Ranges = Mapping[str, Range]
"""By a layer's key."""


def layers_of(graph: ir.Graph) -> Iterator[Layer]:
    """The layers of experts and towers that are wider than one output, in the order in which they run."""
    for node in list(graph):
        if node.op_type not in {"Gemm", "MatMul"}:
            continue
        weight = node.inputs[1]
        if weight is None or weight.const_value is None or not _LAYERS.match(str(weight.name)):
            continue
        matrix: NDArray[np.float32] = weight.const_value.numpy()
        if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1:
            matrix = matrix.T
        if matrix.shape[1] > 1:
            yield Layer(node, matrix, str(weight.name))


def measure_ranges(source: Path, runs: Iterable[Mapping[str, Any]]) -> Ranges:
    """Run a graph on arrays by the names of its inputs, and choose a range for what each of its layers reads.

    A layer that no row reaches, as an expert that none selects, is left out.

    Example::

        ranges = measure_ranges(path, [batch.inputs.arrays() for batch in batches])
    """
    watched = source.with_name(f".{source.name}-watched")
    model = ir.load(source)
    inputs: dict[str, set[str]] = {}
    for layer in layers_of(model.graph):
        inputs.setdefault(layer.key, set()).add(str(layer.source.name))
        if layer.source not in model.graph.outputs:
            model.graph.outputs.append(layer.source)
    try:
        ir.save(model, watched)
        spans = _spans(watched, sorted(set[str]().union(*inputs.values())), runs)
    finally:
        watched.unlink(missing_ok=True)
    seen = {key: [spans[given] for given in values if given in spans] for key, values in inputs.items()}
    return {key: Range(min(r.low for r in each), max(r.high for r in each)) for key, each in seen.items() if each}


def _spans(graph: Path, values: list[str], runs: Iterable[Mapping[str, Any]]) -> dict[str, Range]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    samples: dict[str, list[NDArray[np.float32]]] = {}
    for arrays in runs if values else ():
        for value, array in zip(values, session.run(values, {name: arrays[name] for name in names}), strict=True):
            if array.size:
                flat = array.reshape(-1)
                ends = np.array([flat.min(), flat.max()], dtype=np.float32)
                # A step between those taken that no usual width divides, so that all columns are among them.
                samples.setdefault(value, []).extend([flat[:: 2 * (flat.size // _SAMPLED // 2) + 1], ends])
    return {value: _best(np.concatenate(parts)) for value, parts in samples.items()}


def _best(values: NDArray[np.float32]) -> Range:
    """The range whose steps move values least, squared."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    ranges = [Range(share * low, share * high) for share in _SHARES.tolist()]
    return min(ranges, key=lambda each: float(np.square(_rounded(values, each) - values).sum(dtype=np.float64)))


def _rounded(values: NDArray[np.float32], span: Range) -> NDArray[np.float32]:
    size, zero = span.steps()
    return np.float32(size) * (np.clip(np.rint(values / np.float32(size)) + zero, 0, STEPS) - np.float32(zero))
