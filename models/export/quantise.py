"""int8 experts and towers in a finished graph; router, request share, shared layers, heads and tables stay float32.

Static quantisation: a layer's inputs are rounded to 256 steps between two values that were chosen on real rows, its
weights to steps of their own column by column. So a row's answer hangs on the row alone: a scale taken when the graph
runs would be that of all rows in the run, and an answer would move with its neighbours. Values further out count as
the outermost. What an expert's first layer gives to its second never becomes float32 where ReLU alone stands
between them.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", sections 2.1 to 2.4.

Shape legend: I inputs, O outputs of a layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import QUANTISED
from models.export.activation_ranges import Layer, Range, Ranges, layers_of

# Seven bits of the eight: processors without VNNI add pairs of products in 16 bits, which would overflow with more, and
# a graph must answer alike wherever it runs.
_LARGEST = 63
_MOST_BIAS = 2**30
_CONTRIB = "com.microsoft"


class _Input(NamedTuple):
    """A quantised matrix, its scale and its zero point."""

    values: ir.Value
    scale: float
    zero: int


def quantise_experts(source: Path, target: Path, ranges: Ranges) -> int:
    """Write the graph `source` with int8 experts and towers to `target` in the same directory.

    `ranges`: what `measure_ranges` found for this graph or one of the same weights; layers without one stay float32.

    Returns:
        How many layers were quantised.

    Raises:
        ExportError: the graph has no such layer, or the result is not valid.
    """
    model = ir.load(source)
    rewriter = _Rewriter(model.graph, ranges)
    count = sum(rewriter.rewrite(layer) for layer in rewriter.layers.values())
    if count == 0:
        message = "the graph has no expert or tower layer to quantise; export it without --quantize"
        raise ExportError(message)
    _remove_unused(model.graph)
    model.metadata_props[QUANTISED] = "experts"
    model.opset_imports.setdefault(_CONTRIB, 1)
    ir.save(model, target)
    try:
        onnx.checker.check_model(target, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the quantised graph is not valid ONNX, which is a defect of the export: {error}"
        raise ExportError(message) from error
    return count


class _Rewriter:
    """Adds each layer's integer form before it and hands its users over; matrices of several layers round once."""

    def __init__(self, graph: ir.Graph, ranges: Ranges) -> None:
        self.graph, self.ranges = graph, ranges
        self.layers = {id(layer.node): layer for layer in layers_of(graph)}
        self.inputs: dict[ir.Value, _Input] = {}

    def rewrite(self, layer: Layer) -> bool:
        """Replace a layer if its inputs were measured."""
        span, x = self.ranges.get(layer.key), layer.node.inputs[0]
        if span is None or x is None:
            return False
        given = self._quantised(x, span, layer.node)
        scale_O = _column_scales(layer.weight_IO)
        bias_O = _whole_bias(layer.node, given.scale * scale_O)
        if layer.node.op_type == "Gemm" and bias_O is not None:
            self._gemm(layer, given, scale_O, bias_O)
        else:
            self._product(layer, given, scale_O)
        return True

    def _gemm(self, layer: Layer, given: _Input, scale_O: NDArray[np.float32], bias_O: NDArray[np.int32]) -> None:
        # The bias joins the sum of integers; a next layer's input leaves it as bytes, whose zero is ReLU's.
        name, answer = layer.name, layer.node.outputs[0]
        inputs = [
            *(given.values, self._float(f"{name}.in", given.scale), self._zero(f"{name}.in", given.zero)),
            self._constant(f"{name}.int8", _stored(layer.weight_IO, scale_O)),
            self._constant(f"{name}.scale", scale_O),
            self._constant(f"{name}.zero", np.zeros(len(scale_O), dtype=np.int8)),
            self._constant(f"{name}.bias", bias_O),
        ]
        activation = _only_relu(answer)
        after = None if activation is None else self._range_of(activation)
        if activation is None or after is None:
            self._hand_over(answer, self._add(layer.node, "QGemm", inputs, domain=_CONTRIB))
            return
        scale, zero = after.steps()
        inputs += [self._float(f"{name}.out", scale), self._zero(f"{name}.out", zero)]
        self.inputs[activation] = _Input(self._add(layer.node, "QGemm", inputs, domain=_CONTRIB), scale, zero)

    def _product(self, layer: Layer, given: _Input, scale_O: NDArray[np.float32]) -> None:
        # What is added differs from row to row, or is too large for whole numbers of this scale.
        name, added = layer.name, layer.node.inputs[2] if len(layer.node.inputs) > 2 else None  # noqa: PLR2004 Gemm's C
        inputs = [
            *(given.values, self._constant(f"{name}.int8", _stored(layer.weight_IO, scale_O))),
            *(self._float(f"{name}.in", given.scale), self._constant(f"{name}.scale", scale_O)),
            self._zero(f"{name}.in", given.zero),
        ]
        answer = self._add(layer.node, "MatMulIntegerToFloat", inputs, domain=_CONTRIB)
        if added is not None:
            answer = self._add(layer.node, "Add", [answer, added])
        self._hand_over(layer.node.outputs[0], answer)

    def _range_of(self, x: ir.Value) -> Range | None:
        """What was measured of a matrix, if nothing but layers to be quantised read it."""
        readers = [self.layers.get(id(user)) for user, _ in x.uses()]
        spans = [None if reader is None else self.ranges.get(reader.key) for reader in readers]
        return spans[0] if spans and None not in spans else None

    def _quantised(self, x: ir.Value, span: Range, before: ir.Node) -> _Input:
        if x in self.inputs:
            return self.inputs[x]
        producer = x.producer()
        if producer is not None and producer.op_type == "Gather" and producer.inputs[0] is not None:
            # Rows picked for one expert: bytes are cheaper to pick than floats, and all experts share one scale.
            whole = self._quantised(producer.inputs[0], span, before)
            axis = {"axis": producer.attributes.get_int("axis", 0)}
            rows = self._add(before, "Gather", [whole.values, producer.inputs[1]], axis)
            quantised = whole._replace(values=rows)
        else:
            scale, zero = span.steps()
            name = f"{x.name}.steps"
            inputs = [x, self._float(name, scale), self._zero(name, zero)]
            quantised = _Input(self._add(before, "QuantizeLinear", inputs), scale, zero)
        self.inputs[x] = quantised
        return quantised

    def _hand_over(self, old: ir.Value, new: ir.Value) -> None:
        new.shape, new.type = old.shape, old.type
        ir.convenience.replace_all_uses_with(old, new)

    def _add(
        self,
        before: ir.Node,
        operator: str,
        inputs: Sequence[ir.Value | None],
        attributes: dict[str, int] | None = None,
        domain: str = "",
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes or {}, domain=domain)
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def _float(self, name: str, value: float) -> ir.Value:
        return self._constant(f"{name}_scale", np.array(value, dtype=np.float32))

    def _zero(self, name: str, value: int) -> ir.Value:
        return self._constant(f"{name}_zero", np.array(value, dtype=np.uint8))

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.initializers[name] = value
        return value


def _column_scales(weight_IO: NDArray[np.float32]) -> NDArray[np.float32]:
    largest_O = np.abs(weight_IO).max(axis=0)
    return np.where(largest_O > 0, largest_O / _LARGEST, 1.0).astype(np.float32)


def _stored(weight_IO: NDArray[np.float32], scale_O: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.rint(weight_IO / scale_O).astype(np.int8)


def _whole_bias(node: ir.Node, scale_O: NDArray[np.float32]) -> NDArray[np.int32] | None:
    """What a Gemm adds to each column, in whole numbers of a scale; None: it differs by row, or it is too large."""
    added = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 a Gemm's third input is what it adds
    if added is None:
        return np.zeros(len(scale_O), dtype=np.int32)
    if added.const_value is None or added.const_value.numpy().ndim != 1:
        return None
    whole_O = np.rint(added.const_value.numpy().astype(np.float64) / scale_O)
    return whole_O.astype(np.int32) if np.abs(whole_O).max() < _MOST_BIAS else None


def _only_relu(answer: ir.Value) -> ir.Value | None:
    """What ReLU makes of a value that nothing else reads."""
    users = [node for node, _ in answer.uses()]
    return users[0].outputs[0] if len(users) == 1 and users[0].op_type == "Relu" else None


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
