"""Experts with weights of 8 or 4 bits in a graph for a card: ``com.microsoft.QMoE`` in place of ``com.microsoft.MoE``.

Weights are signed whole numbers times a scale: with 8 bits one scale an output, with 4 bits one for each `BLOCK` inputs
of an output. They are stored as the operator's schema has them, and the provider lays them out for its kernel when it
loads them (``weights_prepacked=0``); so the CPU runs the very graph that a card runs. What goes into and comes out of
the operator is float16, which is all that its kernel on a card takes. Routers stay float32.

Source: onnxruntime, docs/ContribOperators.md, com.microsoft.QMoE.

Shape legend: E experts, N outputs, K inputs of a layer.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnxscript import ir

from contract.errors import ExportError
from models.export.half import halve, save_checked

Bits = Literal[8, 4]
BLOCK = 64
MULTIPLE = 64
"""Widths are padded to multiples of it: the card's kernel reads tiles of 64 inputs, interleaved by outputs."""


def write_quantised_moe(source: Path, target: Path, bits: Bits) -> int:
    """Write the graph `source` with experts' weights of so many bits to `target` in the same directory.

    Returns:
        How many operators were changed.

    Raises:
        ExportError: the graph has no such operator, or the result is not valid.
    """
    model = ir.load(source)
    nodes = [node for node in list(model.graph) if node.op_type == "MoE"]
    if not nodes:
        message = (
            "the graph has no com.microsoft.MoE, whose weights could be quantised: "
            "export.cuda int8 and int4 need the form moe"
        )
        raise ExportError(message)
    swap = _OperatorSwap(model.graph, bits)
    for node in nodes:
        swap.replace(node)
    halve(model)
    save_checked(model, target)
    return len(nodes)


def quantised(weight_ENK: NDArray[np.float32], bits: Bits) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Bytes [E, N, K] or, of two numbers each, [E, N, K / 2], and scales [E, N] or [E, N, K / `BLOCK`].

    Example:
        >>> packed, scale = quantised(np.float32([[[-1.0, 1.0]]]), 8)
        >>> packed.tolist(), round(float(scale[0, 0]), 4)
        ([[[1, 255]]], 0.0079)
    """
    most = 2 ** (bits - 1) - 1
    blocks = weight_ENK[:, :, None] if bits == 8 else weight_ENK.reshape(*weight_ENK.shape[:2], -1, BLOCK)  # noqa: PLR2004 a byte
    # As the operator reads it, which is in half precision.
    scale = np.abs(blocks).max(axis=-1) / most
    scale = np.where(scale > 0, scale, 1.0).astype(np.float16).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float16).smallest_subnormal.astype(np.float32))
    numbers = np.clip(np.rint(blocks / scale[..., None]), -most - 1, most).reshape(weight_ENK.shape)
    stored = (numbers + most + 1).astype(np.uint8)
    if bits == 8:  # noqa: PLR2004
        return stored, scale[:, :, 0]
    return stored[..., ::2] | (stored[..., 1::2] << 4), scale


class _OperatorSwap:
    """Replaces operators one by one; padded columns are zeros, and are cut off again."""

    def __init__(self, graph: ir.Graph, bits: Bits) -> None:
        self._graph, self._bits = graph, bits

    def replace(self, node: ir.Node) -> None:
        x, router, weight1, bias1, weight2, bias2 = node.inputs
        first, second = _array(weight1), _array(weight2)
        width, hidden = _padded(first.shape[2]), _padded(first.shape[1])
        given = [
            self._widened(x, first.shape[2], width, node),
            router,
            *self._weight(weight1, _grown(first, hidden, width)),
            self._widened(bias1, first.shape[1], hidden, node),
            *self._weight(weight2, _grown(second, width, hidden)),
            self._widened(bias2, first.shape[2], width, node),
        ]
        kept = {name: node.attributes[name] for name in ("activation_type", "k", "normalize_routing_weights")}
        own = {"expert_weight_bits": self._bits, "quant_type": "int", "weights_prepacked": 0}
        own |= {"block_size": BLOCK} if self._bits == 4 else {}  # noqa: PLR2004
        fresh = ir.node("QMoE", given, own, domain="com.microsoft")
        fresh.attributes.update(kept)
        self._graph.insert_before(node, fresh)
        self._take_over(node, fresh, first.shape[2], width)

    def _take_over(self, old: ir.Node, fresh: ir.Node, width: int, padded: int) -> None:
        before, answer = old.outputs[0], fresh.outputs[0]
        answer.name, answer.type = f"{before.name}.padded", ir.TensorType(ir.DataType.FLOAT)
        answer.shape = None if before.shape is None else ir.Shape([before.shape[0], padded])
        if padded > width:
            bounds = [self._constant(f"{before.name}.{name}", np.array([n])) for name, n in (("0", 0), ("end", width))]
            axis = self._constant(f"{before.name}.axis", np.array([1]))
            cut = ir.node("Slice", [answer, *bounds, axis])
            self._graph.insert_after(fresh, cut)
            answer = cut.outputs[0]
            answer.shape, answer.type = before.shape, before.type
        for user, place in list(before.uses()):
            user.replace_input_with(place, answer)
        # Safely, it lets go of its inputs: the float32 weights would stay in the file.
        self._graph.remove(old, safe=True)

    def _weight(self, value: ir.Value | None, array: NDArray[np.float32]) -> list[ir.Value]:
        packed, scale = quantised(array, self._bits)
        name = "" if value is None else value.name
        parts = ((f"{name}.int{self._bits}", packed), (f"{name}.scale", scale))
        return [self._constant(part, values) for part, values in parts]

    def _widened(self, value: ir.Value | None, width: int, padded: int, before: ir.Node) -> ir.Value | None:
        """A matrix with further columns of zeros."""
        if value is None or width == padded:
            return value
        if value.const_value is not None:
            return self._constant(
                f"{value.name}.padded", np.pad(value.const_value.numpy(), ((0, 0), (0, padded - width)))
            )
        pads = self._constant(f"{before.name}.{value.name}.pads", np.array([0, 0, 0, padded - width]))
        node = ir.node("Pad", [value, pads])
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.initializers[name] = value
        return value


def _array(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None  # noqa: S101 the operator needs its weights
    assert value.const_value is not None  # noqa: S101 which our graphs hold as constants
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _grown(weight_ENK: NDArray[np.float32], outputs: int, inputs: int) -> NDArray[np.float32]:
    _, n, k = weight_ENK.shape
    return np.pad(weight_ENK, ((0, 0), (0, outputs - n), (0, inputs - k)))


def _padded(width: int) -> int:
    return -(-width // MULTIPLE) * MULTIPLE
