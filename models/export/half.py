"""Experts in half precision in a graph for a card; router, request columns, towers and tables stay float32.

Logits in half precision pick other experts, so no router is touched. What goes into the experts' products is rounded to
float16, their sums are too; activations and mixtures are float32 again.
"""

import re
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

from contract.errors import ExportError

_EXPERTS = re.compile(r"^network\.levels\.\d+\.(?:mixture|static)\.(?!.*\.request\.)(?!.*weight_request)")
_WEIGHT = {"Gemm": 1, "MatMul": 1, "MoE": 2, "QMoE": 2}
"""Which input of an operator tells whose product it is."""


def write_half(source: Path, target: Path) -> int:
    """Write the graph `source` with experts in float16 to `target` in the same directory.

    Returns:
        How many products were changed.

    Raises:
        ExportError: there is none, or the result is not valid.
    """
    model = ir.load(source)
    count = halve(model)
    if not count:
        message = "the graph has no product of experts that could be computed in half precision"
        raise ExportError(message)
    save_checked(model, target)
    return count


def halve(model: ir.Model) -> int:
    """Round the experts' products of a graph in memory; how many there are."""
    rewriter = _Halving(model.graph)
    products = [node for node in list(model.graph) if _is_experts(node)]
    for node in products:
        rewriter.rewrite(node)
    return len(products)


def save_checked(model: ir.Model, target: Path) -> None:
    """Write a changed graph without the constants that nothing reads any more.

    Raises:
        ExportError: it is not valid.
    """
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
    ir.save(model, target)
    try:
        onnx.checker.check_model(target, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the graph {target.name} is not valid ONNX, which is a defect of the export: {error}"
        raise ExportError(message) from error


def _is_experts(node: ir.Node) -> bool:
    if node.op_type not in _WEIGHT:
        return False
    weight = node.inputs[_WEIGHT[node.op_type]]
    return weight is not None and weight.const_value is not None and bool(_EXPERTS.match(str(weight.name)))


class _Halving:
    """Rounds each value once, constants beforehand."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._known: dict[ir.Value, ir.Value] = {}

    def rewrite(self, node: ir.Node) -> None:
        for place, value in enumerate(node.inputs):
            if value is not None:
                if value not in self._known:
                    self._known[value] = self._rounded(value, node)
                node.replace_input_with(place, self._known[value])
        answer = node.outputs[0]
        shape, uses = answer.shape, list(answer.uses())
        answer.type = ir.TensorType(ir.DataType.FLOAT16)
        widened = self._cast(answer, ir.DataType.FLOAT, node, after=True)
        widened.shape, widened.type = shape, ir.TensorType(ir.DataType.FLOAT)
        for user, place in uses:
            user.replace_input_with(place, widened)

    def _rounded(self, value: ir.Value, before: ir.Node) -> ir.Value:
        if value.const_value is None:
            return self._cast(value, ir.DataType.FLOAT16, before)
        if value.const_value.dtype != ir.DataType.FLOAT:
            return value  # weights in bytes
        array: NDArray[np.float32] = value.const_value.numpy()
        tensor = ir.tensor(array.astype(np.float16), name=f"{value.name}.fp16")
        constant = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._graph.initializers[str(tensor.name)] = constant
        return constant

    def _cast(self, value: ir.Value, dtype: ir.DataType, place: ir.Node, *, after: bool = False) -> ir.Value:
        node = ir.node("Cast", [value], {"to": int(dtype)})
        if after:
            self._graph.insert_after(place, node)
        else:
            self._graph.insert_before(place, node)
        return node.outputs[0]
