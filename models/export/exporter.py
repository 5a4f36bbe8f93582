"""Export: a trained ranker to one ONNX file whose answers were compared with the model's own."""

import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from contract.errors import ExportError
from contract.graph_names import FORM, FORM_REASON, GATES, SCHEMA_FINGERPRINT, TABLES_FILE
from contract.inputs import Inputs
from contract.schema import Schema
from models.export.form import RequestedForm, choose_form, measure_usage
from models.export.onnx_file import operators, write_onnx
from models.export.parity import check_parity
from models.export_graph.exported_network import Form
from models.export_graph.serving_graph import ServingGraph, describe_gates
from models.ranker import Ranker

logger = logging.getLogger(__name__)
_EXTERNAL_FROM = 2**28
_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class ExportReport:
    """What was exported and why so.

    `form` is dense, sparse or static; `union_over_n` the share of experts that a sample row needs, over all tasks;
    `worst_difference` the largest deviation from the eager model over `rows_checked` rows; `ties` the rows left out of
    that because their gates could not tell two experts apart; `idle` the experts that none of the rows selected, and
    `unreached` those of them that were not compared.
    """

    path: Path
    gate: str
    form: Form
    reason: str
    warning: str
    union_over_n: float
    rows_checked: int
    worst_difference: float
    ties: int
    idle: tuple[int, ...]
    unreached: tuple[int, ...]
    operators: list[str]
    versions: dict[str, str]


def export(
    ranker: Ranker,
    schema: Schema,
    sample: Inputs,
    path: Path,
    form: RequestedForm = "auto",
    *,
    typical_rows: int = 64,
    require_sparse: bool = False,
    external_tables: bool | None = None,
) -> ExportReport:
    """Write the ranker as one ONNX graph, by way of a directory beside `path` whose files move once all checks pass.

    `sample` are real rows (request rows 1 or as many as candidates), which decide the form at `typical_rows`
    candidates a request; `require_sparse` refuses gates that have not converged. `external_tables` puts the embedding
    tables into ``tables.bin`` beside `path`, to be memory-mapped; None: from 256 MB on.

    Raises:
        ExportError: `path` is a directory or in none, non-finite weights, a gate that has not converged under
            `require_sparse`, a graph that the exporter refuses or that answers differently.
        SchemaMismatchError: the ranker was built for another schema.
    """
    schema.require(ranker.schema.fingerprint(), "the model")
    _refuse_target(path)
    _refuse_non_finite(ranker)
    ranker = ranker.cpu().float().eval()
    usage = measure_usage(ranker, sample)
    choice = choose_form(
        ranker.network.typed_gates, usage, form, typical_rows=typical_rows, require_sparse=require_sparse
    )
    gate = ranker.config.gate.name if ranker.network.levels else "none"
    if choice.warning:
        logger.warning("%s", choice.warning)
    versions = {name: version(name) for name in _LIBRARIES}
    metadata = {
        SCHEMA_FINGERPRINT: schema.fingerprint(),
        "tasks": json.dumps([{"name": task.name, "kind": task.kind} for task in schema.tasks]),
        "architecture": ranker.config.architecture.name,
        "gate": gate,
        FORM: choice.form,
        FORM_REASON: choice.reason,
        GATES: json.dumps(describe_gates(ranker, choice.form)),
        "union_over_n": f"{usage.union_over_n:.6f}",
        "versions": json.dumps(versions),
    }
    graph = ServingGraph(ranker, choice.form)
    external = (
        sum(table.nbytes for table in graph.tables().values()) >= _EXTERNAL_FROM
        if external_tables is None
        else external_tables
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as beside:
        fresh = Path(beside) / path.name
        write_onnx(graph, schema, fresh, metadata, external_tables=external)
        parity = check_parity(ranker, fresh, sample)
        if parity.unreached:
            logger.warning("no row reaches the experts %s, so the graph's were not compared", parity.unreached)
        used = operators(fresh)
        if external:
            fresh.with_name(TABLES_FILE).replace(path.with_name(TABLES_FILE))
        fresh.replace(path)
        if not external:
            # Those of an earlier export would be published with a graph that does not read them.
            path.with_name(TABLES_FILE).unlink(missing_ok=True)
    return ExportReport(
        path=path,
        gate=gate,
        form=choice.form,
        reason=choice.reason,
        warning=choice.warning,
        union_over_n=usage.union_over_n,
        rows_checked=parity.rows,
        worst_difference=parity.worst,
        ties=parity.ties,
        idle=parity.idle,
        unreached=parity.unreached,
        operators=used,
        versions=versions,
    )


def as_json(report: ExportReport) -> dict[str, object]:
    """The report with plain values."""
    return {**asdict(report), "path": str(report.path)}


def _refuse_target(path: Path) -> None:
    if not path.parent.is_dir() or path.is_dir():
        message = f"{path} cannot become a graph: it is a directory, or its own does not exist"
        raise ExportError(message)


def _refuse_non_finite(ranker: Ranker) -> None:
    for name, tensor in ranker.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            message = (
                f"weight {name} holds {bad} of {tensor.numel()} values that are not finite; such a model answers "
                "nonsense: train again with a lower learning rate, or export an earlier checkpoint"
            )
            raise ExportError(message)
