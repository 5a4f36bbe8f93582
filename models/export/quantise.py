"""int8 experts and towers in a finished graph; router, request share, shared layers, heads and tables stay float32.

Dynamic quantisation: each matrix of inputs is scaled when the graph runs, the weights once and for all, column by
column. The scale is that of all rows in the run, so a row's answer moves a little with its neighbours'.

Shape legend: I inputs, O outputs of a layer.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import QUANTISED

_LAYERS = re.compile(
    r"^(network\.levels\.\d+\.(mixture|static)|towers)\.(?!heads\.)(?!.*\.request\.)(?!.*weight_request)"
)
# Seven bits of the eight: processors without VNNI add pairs of products in 16 bits, which would overflow with more, and
# a graph must answer alike wherever it runs.
_LARGEST = 63


class _Input(NamedTuple):
    """A quantised matrix, its scale and its zero point."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value


def quantise_experts(source: Path, target: Path) -> int:
    """Write the graph `source` with int8 experts and towers to `target` in the same directory.

    Returns:
        How many layers were quantised.

    Raises:
        ExportError: the graph has no such layer, or the result is not valid.
    """
    model = ir.load(source)
    rewriter = _Rewriter(model.graph)
    count = sum(rewriter.rewrite(node) for node in list(model.graph))
    if count == 0:
        message = "the graph has no expert or tower layer to quantise; export it without --quantize"
        raise ExportError(message)
    model.metadata_props[QUANTISED] = "experts"
    ir.save(model, target)
    try:
        onnx.checker.check_model(target, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the quantised graph is not valid ONNX, which is a defect of the export: {error}"
        raise ExportError(message) from error
    return count


class _Rewriter:
    """Replaces layers in place; matrices that several layers read are quantised once."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.inputs: dict[ir.Value, _Input] = {}

    def rewrite(self, node: ir.Node) -> bool:
        """Replace a node if it is an expert's or a tower's layer."""
        weight_IO = _weight(node)
        if weight_IO is None:
            return False
        x, name = node.inputs[0], str(node.outputs[0].name)
        assert x is not None  # noqa: S101 a layer has an input
        old = node.inputs[1]
        scale_O = np.maximum(np.abs(weight_IO).max(axis=0), np.finfo(np.float32).tiny * _LARGEST) / _LARGEST
        stored = self._constant(f"{name}.int8", np.rint(weight_IO / scale_O).astype(np.int8))
        given = self._quantised(x, node)
        (product,) = self._add(node, "MatMulInteger", [given.values, stored, given.zero])
        (cast,) = self._add(node, "Cast", [product], {"to": int(ir.DataType.FLOAT)})
        scale = self._constant(f"{name}.scale", scale_O.astype(np.float32))
        (both,) = self._add(node, "Mul", [given.scale, scale])
        (answer,) = self._add(node, "Mul", [cast, both])
        if len(node.inputs) > 2 and node.inputs[2] is not None:  # noqa: PLR2004 a Gemm's third input is what it adds
            (answer,) = self._add(node, "Add", [answer, node.inputs[2]])
        answer.name, answer.shape, answer.type = name, node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_all_uses_with(node.outputs[0], answer)
        self.graph.remove(node, safe=True)
        if old is not None and not old.uses():
            del self.graph.initializers[str(old.name)]
        return True

    def _quantised(self, x: ir.Value, before: ir.Node) -> _Input:
        if x in self.inputs:
            return self.inputs[x]
        producer = x.producer()
        if producer is not None and producer.op_type == "Gather" and producer.inputs[0] is not None:
            # Rows picked for one expert: bytes are cheaper to pick than floats, and all experts share one scale.
            whole = self._quantised(producer.inputs[0], before)
            attributes = {"axis": producer.attributes.get_int("axis", 0)}
            (rows,) = self._add(before, "Gather", [whole.values, producer.inputs[1]], attributes)
            quantised = whole._replace(values=rows)
            self.inputs[x] = quantised
            return quantised
        quantised = _Input(*self._add(before, "DynamicQuantizeLinear", [x], outputs=3))
        self.inputs[x] = quantised
        return quantised

    def _add(
        self,
        before: ir.Node,
        operator: str,
        inputs: list[ir.Value | None],
        attributes: dict[str, int] | None = None,
        outputs: int = 1,
    ) -> tuple[ir.Value, ...]:
        node = ir.node(operator, inputs, attributes or {}, num_outputs=outputs)
        self.graph.insert_before(before, node)
        return tuple(node.outputs)

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.initializers[name] = value
        return value


def _weight(node: ir.Node) -> NDArray[np.float32] | None:
    """The layer's weights [I, O], if it is an expert's or a tower's and wider than one output."""
    if node.op_type not in {"Gemm", "MatMul"}:
        return None
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or not _LAYERS.match(str(weight.name)):
        return None
    matrix: NDArray[np.float32] = weight.const_value.numpy()
    if node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1:
        matrix = matrix.T
    return matrix if matrix.shape[1] > 1 else None
