"""Cheaper graphs beside the exported one, over its tables: a cheap head, and the model with fewer experts a row."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import GATES, TABLES_FILE
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


def export_fewer_experts(ranker: Ranker, report: ExportReport, most: int, target: Path) -> None:
    """Write the exported graph with at most `most` experts a row and gate, whose weights keep their sum.

    Raises:
        ExportError: its gates do not choose row by row.
    """
    graph = ServingGraph(ranker, report.form)
    routers = [module for module in graph.modules() if isinstance(module, Router)]
    if not routers:
        message = f"export.fewer_experts is {most}, but the model's experts are not chosen row by row; leave it at 0"
        raise ExportError(message)
    for router in routers:
        router.most = most
    _write(graph, ranker, report, target, _metadata(report))


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
