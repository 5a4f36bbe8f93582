"""From the serving module to an ONNX file: trace with open row counts, set metadata, check.

Shape legend: R requests, N candidate rows, V packed ids, L list features.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import ir
from torch import Tensor
from torch.export import Dim

from contract.errors import ExportError
from contract.files import appearing
from contract.graph_names import ITEM_ROWS, MOST_EXPERTS, PREPARED_ROWS_FILE, REQUEST_OF, SHARES, TABLES_FILE
from contract.inputs import PARTS
from contract.schema import Schema
from models.export_graph.cheap_head import CheapHead
from models.export_graph.lookup import TABLES
from models.export_graph.pairing import pair_add_onnx, pair_linear_onnx
from models.export_graph.serving_graph import ServingGraph
from models.export_graph.sparse_experts import expert_answers_onnx

OPSET = 20
PREPARED_ROWS = ("prepared_IH", "prepared_IEH")
"""Last parts of the names of the items' shares."""
_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.moerank.pair_add.default: pair_add_onnx,
    torch.ops.moerank.pair_linear.default: pair_linear_onnx,
    torch.ops.moerank.expert_answers.default: expert_answers_onnx,
}
# Rows to trace with: not 0 or 1, which the exporter would settle for good, and all different.
_TRACED = {"request": 3, "candidate": 5}
_SEQUENCES = ("Sequence", "Optional")
_CONTROL_FLOW = ("Loop", "Scan", "If")


def input_names(
    schema: Schema, *, packed: bool = False, prepared: bool = False, shares: bool = False, limited: bool = False
) -> list[str]:
    """The graph's inputs: those of `contract.inputs.Inputs.arrays` that have any feature, and a variant's own."""
    names = []
    for part in PARTS:
        specs = schema.part(part)
        names += [f"{part}_ids"] * bool(specs.ids)
        names += [f"{part}_list_values", f"{part}_list_lengths"] * bool(specs.lists)
        names += [f"{part}_dense"] * bool(specs.dense)
    variant = {REQUEST_OF: packed, ITEM_ROWS: prepared, SHARES: shares, MOST_EXPERTS: limited}
    return [*names, *(name for name, is_taken in variant.items() if is_taken)]


def write_onnx(
    graph: ServingGraph | CheapHead,
    schema: Schema,
    path: Path,
    metadata: Mapping[str, str],
    *,
    external_tables: bool = False,
    packed: bool = False,
    prepared: bool = False,
    shares: int = 0,
) -> None:
    """Trace the module and write a checked file; with `external_tables` the tables lie beside it in `TABLES_FILE`.

    `packed`: the graph takes any number of requests, and for each candidate the number of its own. `prepared`: it takes
    each candidate's row in the tables of prepared items; `schema` is that of the other features. `shares`:
    it takes each candidate's sum of prepared rows, so many numbers. With `MOST_EXPERTS` among the `metadata`
    it takes how many experts a row and gate may have.

    Raises:
        ExportError: the exporter or the checker refuses the graph, or it holds a loop, a branch or a sequence.
    """
    names = input_names(schema, packed=packed, prepared=prepared, shares=bool(shares), limited=MOST_EXPERTS in metadata)
    example = _example(schema, names, one_request=graph.one_request, shares=shares)
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                kwargs={"inputs": example},
                dynamo=True,
                opset_version=OPSET,
                input_names=list(example),
                output_names=graph.outputs,
                dynamic_shapes={"inputs": _dynamic_shapes(example, one_request=graph.one_request)},
                custom_translation_table=_TRANSLATIONS,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        message = f"the exporter refused the model: {error}"
        raise ExportError(message) from error
    assert program is not None  # noqa: S101 dynamo=True always answers with a program
    model = program.model
    _name_rows(model, one_request=graph.one_request)
    model.metadata_props.update(metadata)
    model.producer_name = "moerank"
    if external_tables:
        tables = [name for name in model.graph.initializers if name.startswith(TABLES)]
        _move(model, tables, path.with_name(TABLES_FILE))
    if prepared:
        rows = [name for name in model.graph.initializers if name.rpartition(".")[2] in PREPARED_ROWS]
        _move(model, rows, path.with_name(PREPARED_ROWS_FILE))
    ir.save(model, path)
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        message = f"the graph is not valid ONNX, which is a defect of the export: {error}"
        raise ExportError(message) from error
    _refuse_loops(operators(path))


def operators(path: Path) -> list[str]:
    """All operators of a graph file, subgraphs and functions included, sorted and each once."""
    model = ir.load(path)
    nodes = [*model.graph.all_nodes(), *(node for function in model.functions.values() for node in function)]
    return sorted({f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in nodes})


def annotate(path: Path, facts: Mapping[str, str]) -> None:
    """Add to what a graph file says of itself; it is replaced by one rename."""
    model = ir.load(path)
    model.metadata_props.update(facts)
    with appearing(path) as fresh:
        ir.save(model, fresh)


def _move(model: ir.Model, names: Sequence[str], file: Path) -> None:
    # Memory-mapped by the runtime: they load at once, all processes share them, and they may exceed protobuf's 2 GB.
    initializers = [model.graph.initializers[name] for name in names if name in model.graph.initializers]
    tensors = [value.const_value for value in initializers if value.const_value is not None]
    moved = ir.external_data.convert_tensors_to_external(tensors, file.parent, file.name)
    for value, tensor in zip(initializers, moved, strict=True):
        value.const_value = tensor


def _refuse_loops(names: list[str]) -> None:
    bad = [n for n in names if n in _CONTROL_FLOW or n.startswith(_SEQUENCES)]
    if bad:
        message = f"the graph holds {', '.join(bad)}, which run row by row: this is a defect of the export"
        raise ExportError(message)


def _name_rows(model: ir.Model, *, one_request: bool) -> None:
    # The exporter names a row count after whatever it met first; users read these names in errors of the runtime.
    names: dict[str, str | int] = {"request": 1 if one_request else "requests", "candidate": "candidates"}
    for value in model.graph.inputs:
        if value.name == MOST_EXPERTS:
            continue
        part, _, kind = str(value.name).partition("_")
        assert value.shape is not None  # noqa: S101 traced inputs have shapes
        axis = 1 if kind == "list_lengths" else 0
        size = f"{part}_list_values" if kind == "list_values" else names[part]
        value.shape = ir.Shape([size if a == axis else d for a, d in enumerate(value.shape)])
    for value in model.graph.outputs:
        assert value.shape is not None  # noqa: S101 traced outputs have shapes
        value.shape = ir.Shape(["candidates", *list(value.shape)[1:]])


def _example(schema: Schema, names: list[str], *, one_request: bool, shares: int) -> dict[str, Tensor]:
    request_N = torch.arange(_TRACED["candidate"]) % _TRACED["request"]
    example = {REQUEST_OF: request_N, ITEM_ROWS: torch.zeros_like(request_N), MOST_EXPERTS: torch.tensor([1])}
    example[SHARES] = torch.zeros(_TRACED["candidate"], shares)
    for part in PARTS:
        specs, rows = schema.part(part), 1 if one_request and part == "request" else _TRACED[part]
        lengths = torch.full((len(specs.lists), rows), 2, dtype=torch.int64)
        columns = {
            "ids": torch.zeros(rows, len(specs.ids), dtype=torch.int64),
            "list_values": torch.zeros(int(lengths.sum()), dtype=torch.int64),
            "list_lengths": lengths,
            "dense": torch.zeros(rows, len(specs.dense)),
        }
        example |= {f"{part}_{kind}": tensor for kind, tensor in columns.items()}
    return {name: example[name] for name in names}


def _dynamic_shapes(example: dict[str, Tensor], *, one_request: bool) -> dict[str, dict[int, Dim]]:
    rows = {"request": None if one_request else Dim("requests"), "candidate": Dim("candidates")}
    shapes: dict[str, dict[int, Dim]] = {}
    for name in example:
        part, _, kind = name.partition("_")
        if name == MOST_EXPERTS:
            shapes[name] = {}
        elif kind == "list_values":
            shapes[name] = {0: Dim(name)}
        else:
            size = rows[part]
            shapes[name] = {} if size is None else {1 if kind == "list_lengths" else 0: size}
    return shapes


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter reports its progress on standard output and warns about its own internals.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
