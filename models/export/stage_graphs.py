"""Cheaper graphs beside the exported one, over its tables: a cheap head, and the model with fewer experts per row."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import GATES, MOST_EXPERTS, TABLES_FILE
from contract.inputs import Inputs
from models.export.exporter import ExportReport
from models.export.onnx_file import write_onnx
from models.export_graph.cheap_head import CheapHead, fit_cheap_head
from models.export_graph.routing import Router
from models.export_graph.serving_graph import ServingGraph
from models.ranker import Ranker


def export_cheap_head(ranker: Ranker, report: ExportReport, samples: Sequence[Inputs], target: Path) -> None:
    """Fit a cheap head to the ranker's answers to `samples`, and write it to `target` beside the exported graph.

    Raises:
        ExportError: the exporter refuses it.
    """
    metadata = {name: value for name, value in _metadata(report).items() if name != GATES}
    _write(fit_cheap_head(ranker, samples), ranker, report, target, metadata)


def export_fewer_experts(ranker: Ranker, report: ExportReport, least: int, target: Path) -> None:
    """Write the exported graph with one more input: how many experts a row and gate it takes at most.

    Their weights keep the sum of all. The graph notes `least`, the number whose cost is measured at export.

    Raises:
        ExportError: its gates do not choose row by row.
    """
    graph = ServingGraph(ranker, report.form)
    if not any(isinstance(module, Router) for module in graph.modules()):
        message = (
            f"export.stages.fewer_experts is {least}, but the model's experts are not chosen row by row; leave it at 0"
        )
        raise ExportError(message)
    _write(graph, ranker, report, target, {**_metadata(report), MOST_EXPERTS: str(least)})


def _metadata(report: ExportReport) -> dict[str, str]:
    return dict(ir.load(report.path).metadata_props)


def _write(
    graph: ServingGraph | CheapHead, ranker: Ranker, report: ExportReport, target: Path, metadata: dict[str, str]
) -> None:
    external = report.path.with_name(TABLES_FILE).is_file()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        fresh = Path(beside) / target.name
        write_onnx(graph, ranker.schema, fresh, metadata, external_tables=external)
        fresh.replace(target)
