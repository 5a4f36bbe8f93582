"""A graph as a card computes it in TF32, run on the CPU: operands of products keep 10 bits of their mantissa.

So an export tells what TF32 costs without a card. Rounding is Veltkamp's: c = x (2^13 + 1), x' = c - (c - x), which
leaves 24 - 13 bits of the significand, the first of them implicit. Sums stay in float32, as on the card.

Source: Dekker 1971, "A Floating-Point Technique for Extending the Available Precision", section 4; NVIDIA A100 Tensor
Core GPU Architecture, "TF32".
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

_PRODUCTS = ("Gemm", "MatMul")
_SPLIT = np.float32(2**13 + 1)


def write_tf32(source: Path, target: Path) -> int:
    """Write the graph `source` with rounded operands to `target` in the same directory.

    Returns:
        How many products were rounded.
    """
    model = ir.load(source)
    rounding = _Rounding(model.graph)
    products = [node for node in list(model.graph) if node.op_type in _PRODUCTS]
    for node in products:
        rounding.apply(node)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses():
            del model.graph.initializers[name]
    ir.save(model, target)
    return len(products)


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values with 10 bits of mantissa.

    >>> float(rounded(np.float32([1 + 2**-12]))[0])
    1.0
    """
    scaled: NDArray[np.float32] = values * _SPLIT
    return scaled - (scaled - values)


class _Rounding:
    """Rounds each operand once, constants beforehand."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._split = self._constant("tf32.split", np.array(_SPLIT))
        self._known: dict[ir.Value, ir.Value] = {}

    def apply(self, node: ir.Node) -> None:
        for place in (0, 1):
            value = node.inputs[place]
            assert value is not None  # noqa: S101 a product has two operands
            if value not in self._known:
                self._known[value] = self._stored(value) if value.const_value is not None else self._made(value, node)
            node.replace_input_with(place, self._known[value])

    def _stored(self, value: ir.Value) -> ir.Value:
        assert value.const_value is not None  # noqa: S101 the caller asked
        return self._constant(f"{value.name}.tf32", rounded(value.const_value.numpy()))

    def _made(self, value: ir.Value, before: ir.Node) -> ir.Value:
        def add(operator: str, *inputs: ir.Value) -> ir.Value:
            node = ir.node(operator, list(inputs))
            self._graph.insert_before(before, node)
            return node.outputs[0]

        scaled = add("Mul", value, self._split)
        return add("Sub", scaled, add("Sub", scaled, value))

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.initializers[name] = value
        return value
