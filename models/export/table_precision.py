"""Embedding tables of a finished graph in fewer bytes: rows are picked as they are stored, and only those are widened.

int8: each row has its own scale and lowest value, value = lowest + scale * byte (row-wise and asymmetric, as in Guan
et al. 2019, "Post-Training 4-bit Quantization on Embedding Tables", section 3). fp16: rounded to half precision.

Shape legend: V rows of the stacked tables, K embedding dim, C rows at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxscript import ir

from contract import graph_names
from contract.errors import ExportError
from contract.graph_names import TABLES_FILE
from models.export_graph.lookup import TABLES

TableForm = Literal["fp32", "fp16", "int8"]
TABLE_FILES: dict[TableForm, str] = {"fp32": TABLES_FILE, "fp16": "tables.fp16.bin", "int8": "tables.int8.bin"}
_CHUNK = 2**16
_LEVELS = 255


class TableSizes(NamedTuple):
    """Bytes of the stacked tables before and after."""

    float32: int
    stored: int


def store_tables(source: Path, target: Path, form: Literal["fp16", "int8"]) -> TableSizes:
    """Write the graph `source` with its tables in `form` to `target`, and the tables beside it, to be memory-mapped.

    Both graphs lie in one directory; the tables' file is that of `TABLE_FILES`.

    Raises:
        ExportError: the graph has no tables, a value is too large for half precision, or the result is not valid.
    """
    model = ir.load(source)
    names = [name for name, value in model.graph.initializers.items() if name.startswith(TABLES) and value.uses()]
    if not names:
        message = f"the graph has no embedding tables to store as {form}; export it without --tables"
        raise ExportError(message)
    constants: list[ir.Value] = []
    sizes = TableSizes(0, 0)
    for table in names:
        whole_VK, values = _stored(model.graph, table, form)
        constants += values
        stored = sum(value.const_value.nbytes for value in values if value.const_value is not None)
        sizes = TableSizes(sizes.float32 + whole_VK.nbytes, sizes.stored + stored)
    _move(constants, target.parent, TABLE_FILES[form])
    model.metadata_props[graph_names.TABLES] = form
    ir.save(model, target)
    try:
        onnx.checker.check_model(target, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the graph with {form} tables is not valid ONNX, which is a defect of the export: {error}"
        raise ExportError(message) from error
    return sizes


def _stored(graph: ir.Graph, table: str, form: Literal["fp16", "int8"]) -> tuple[NDArray[np.float32], list[ir.Value]]:
    """Put a table's form in its place; the table as it was, and the form's constants."""
    held = graph.initializers[table]
    assert held.const_value is not None  # noqa: S101 an initializer that is read has a value
    whole_VK = held.const_value.numpy()
    arrays = _half(whole_VK) if form == "fp16" else _bytes(whole_VK)
    values = {name: _constant(graph, f"{table}.{name}", array) for name, array in arrays.items()}
    for node, _ in list(held.uses()):
        _replace(graph, node, values)
    del graph.initializers[table]
    return whole_VK, list(values.values())


def _half(whole_VK: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    largest = float(np.finfo(np.float16).max)
    stored_VK = np.empty(whole_VK.shape, np.float16)
    for rows in _chunks(len(whole_VK)):
        most = float(np.abs(whole_VK[rows]).max(initial=0.0))
        if most > largest:
            message = f"a table holds {most:g}, but half precision ends at {largest:g}; use fp32 or int8 tables"
            raise ExportError(message)
        stored_VK[rows] = whole_VK[rows]
    return {"values": stored_VK}


def _bytes(whole_VK: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    rows_V = len(whole_VK)
    stored_VK = np.empty(whole_VK.shape, np.uint8)
    scale_V1, lowest_V1 = np.empty((rows_V, 1), np.float32), np.empty((rows_V, 1), np.float32)
    for rows in _chunks(rows_V):
        # A copy in double precision, so that the widest rows do not overflow and the bytes are the nearest ones.
        chunk_CK = whole_VK[rows].astype(np.float64)
        lowest_V1[rows] = chunk_CK.min(axis=1, keepdims=True)
        scale_V1[rows] = (chunk_CK.max(axis=1, keepdims=True) - lowest_V1[rows]) / _LEVELS
        # A row of one value has scale 0, so that it, and with it the row of zeros, comes back exactly.
        step_C1 = np.where(scale_V1[rows] > 0, scale_V1[rows], 1.0)
        stored_VK[rows] = np.clip(np.rint((chunk_CK - lowest_V1[rows]) / step_C1), 0, _LEVELS)
    return {"values": stored_VK, "scale": scale_V1, "lowest": lowest_V1}


def _chunks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _CHUNK):
        yield slice(start, start + _CHUNK)


def _constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers[name] = value
    return value


def _move(constants: list[ir.Value], directory: Path, name: str) -> None:
    tensors = [each.const_value for each in constants if each.const_value is not None]
    moved = ir.external_data.convert_tensors_to_external(tensors, directory, name)
    for value, tensor in zip(constants, moved, strict=True):
        value.const_value = tensor


def _replace(graph: ir.Graph, node: ir.Node, values: dict[str, ir.Value]) -> None:
    """Pick a row's stored values, widen them, and scale them where they are bytes."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        message = f"a table is read by {node.op_type}, not row by row; this is a defect of the export"
        raise ExportError(message)
    ids, old = node.inputs[1], node.outputs[0]

    def add(operator: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        new = ir.node(operator, list(inputs), attributes)
        graph.insert_before(node, new)
        return new.outputs[0]

    picked = add("Gather", values["values"], ids, axis=0)
    answer = add("Cast", picked, to=int(ir.DataType.FLOAT))
    if "scale" in values:
        scale, lowest = (add("Gather", values[name], ids, axis=0) for name in ("scale", "lowest"))
        answer = add("Add", add("Mul", answer, scale), lowest)
    name, answer.shape, answer.type = old.name, old.shape, old.type
    ir.convenience.replace_all_uses_with(old, answer)
    graph.remove(node, safe=True)
    answer.name = name
