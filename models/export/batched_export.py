"""The packed variant of a graph: any number of requests in one run, each candidate naming its own.

So several users share a run, and what a run costs beyond its rows is paid once. One request alone is cheaper in the
plain graph, which does not copy its share for each candidate.
"""

import tempfile
from pathlib import Path

from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import BATCHED, TABLES_FILE
from contract.inputs import Inputs
from models.export.exporter import ExportReport
from models.export.onnx_file import write_onnx
from models.export.parity import Parity, check_parity
from models.export_graph.serving_graph import ServingGraph
from models.ranker import Ranker


def export_packed(ranker: Ranker, report: ExportReport, sample: Inputs, target: Path) -> Parity:
    """Write the packed variant of an exported graph to `target` in the same directory; it reads the same tables.

    Raises:
        ExportError: the schema has no request or no candidate features to pair, or the graph answers differently.
    """
    schema = ranker.schema
    for part in ("request", "candidate"):
        if not any(getattr(ranker.layouts[part == "candidate"], kind) for kind in ("ids", "lists", "dense")):
            message = f"the schema has no {part} features, so there is nothing to pack; export without --packed"
            raise ExportError(message)
    metadata = dict(ir.load(report.path).metadata_props) | {BATCHED: "true"}
    external = report.path.with_name(TABLES_FILE).is_file()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        fresh = Path(beside) / target.name
        graph = ServingGraph(ranker, report.form)
        write_onnx(graph, schema, fresh, metadata, external_tables=external, packed=True)
        parity = check_parity(ranker, fresh, sample, packed=True)
        fresh.replace(target)
    return parity
