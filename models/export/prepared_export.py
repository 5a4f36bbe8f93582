"""The graph over prepared items: their share of the first layers is computed here, once, and read by row.

A candidate then costs one row fetched, the pair features' share and what follows the first layers. Requests that bring
other values of an item's features take the general graph.
"""

import json
import tempfile
from pathlib import Path

from onnxscript import ir

from contract.graph_names import PREPARED, PREPARED_ROWS_FILE, SHARED, TABLES_FILE
from contract.inputs import Inputs
from models.export.exporter import ExportReport
from models.export.onnx_file import PREPARED_ROWS, write_onnx
from models.export.parity import Parity, check_parity
from models.export_graph.item_shares import PreparedItems
from models.export_graph.serving_graph import ServingGraph
from models.export_graph.shared_tables import PreparedShares
from models.ranker import Ranker


class PreparedGraph:
    """A ranker rebuilt over prepared items, and what that costs and saves; nothing is written yet."""

    def __init__(self, ranker: Ranker, report: ExportReport, items: PreparedItems) -> None:
        """Compute the items' shares, in the form of an exported graph.

        Raises:
            ExportError: no share can be prepared.
        """
        self.ranker, self.report, self.items = ranker, report, items
        self.graph = ServingGraph(ranker, report.form, items)
        shares = [tensor for name, tensor in self.graph.named_buffers() if name.rpartition(".")[2] in PREPARED_ROWS]
        count = items.inputs.rows
        self.bytes_an_item = sum(tensor.nbytes for tensor in shares) // count
        """Bytes of an item's prepared row."""
        columns = sum(
            len(columns)
            for spec, columns in ranker.layouts[1].features(ranker.config.dims, 0)
            if spec.name in items.names
        )
        self.saved = columns * sum(tensor.numel() for tensor in shares) // count
        """Multiplications that a candidate is spared."""


def export_prepared(prepared: PreparedGraph, sample: Inputs, target: Path) -> Parity:
    """Write the graph to `target` beside the exported one, whose tables it reads; the items' rows lie in a file beside.

    Raises:
        ExportError: the graph answers differently.
    """
    ranker, items, report = prepared.ranker, prepared.items, prepared.report
    metadata = dict(ir.load(report.path).metadata_props) | {PREPARED: json.dumps(sorted(items.names))}
    external = report.path.with_name(TABLES_FILE).is_file()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        fresh = Path(beside) / target.name
        lean = items.lean(ranker.schema)
        write_onnx(prepared.graph, lean, fresh, metadata, external_tables=external, prepared=True)
        parity = check_parity(ranker, fresh, sample, items=items)
        fresh.with_name(PREPARED_ROWS_FILE).replace(target.with_name(PREPARED_ROWS_FILE))
        fresh.replace(target)
    return parity


def export_shared(ranker: Ranker, report: ExportReport, shares: PreparedShares, sample: Inputs, target: Path) -> Parity:
    """Write the graph that takes each candidate's sum of prepared rows, which lie outside, to `target`.

    Raises:
        ExportError: the graph answers differently.
    """
    metadata = dict(ir.load(report.path).metadata_props) | {
        PREPARED: json.dumps(sorted(shares.names)),
        SHARED: json.dumps([table.name for table in shares.tables]),
    }
    external = report.path.with_name(TABLES_FILE).is_file()
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as beside:
        fresh = Path(beside) / target.name
        graph = ServingGraph(ranker, report.form, shares=shares)
        write_onnx(graph, shares.lean(ranker.schema), fresh, metadata, external_tables=external, shares=shares.width)
        parity = check_parity(ranker, fresh, sample, items=shares)
        fresh.replace(target)
    return parity
