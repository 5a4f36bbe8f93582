"""Which values of a graph would be copied between host and card, told without a card.

onnxruntime keeps shapes on the host, and arithmetic over nothing but shapes. Some kernels take an input from the
host (`ON_HOST`); a Memcpy node stands wherever a value of one side goes to an input of the other.
"""

from pathlib import Path

from onnxscript import ir

ON_HOST: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
_FROM_SHAPES = {"Shape", "Size"}
_ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Gather", "Concat", "Squeeze", "Unsqueeze", "Cast", "Slice", "Max", "Min"}


def copies(path: Path) -> list[str]:
    """The copies, as ``value -> operator``."""
    graph = ir.load(path).graph
    host: set[ir.Value] = set()
    found = []
    for node in graph:
        given = [value for value in node.inputs if value is not None and not _constant(value)]
        if node.op_type in _FROM_SHAPES or (node.op_type in _ARITHMETIC and given and set(given) <= host):
            host.update(node.outputs)
            continue
        expected = ON_HOST.get(node.op_type, ())
        for place, value in enumerate(node.inputs):
            if value is not None and not _constant(value) and (value in host) != (place in expected):
                found.append(f"{value.name} -> {node.op_type}")
    return found


def _constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.const_value is not None or (producer is not None and producer.op_type == "Constant")
