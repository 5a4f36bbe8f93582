"""The graphs for a card beside a bundle's own: one request per run, and several requests of several users per run.

They hold the same model in another form of its mixture, and are compared with it as the graph for processors is; the
CPU provider has all their operators.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from onnxscript import ir

from contract.graph_names import BATCHED, CUDA_MODEL_FILE, CUDA_PACKED_FILE, FORM, FORM_REASON, TABLES_FILE
from contract.inputs import Inputs
from models.export.cuda_form import CudaChoice, choose_cuda_form
from models.export.exporter import ExportReport
from models.export.onnx_file import operators, write_onnx
from models.export.parity import check_parity
from models.export_graph.serving_graph import ServingGraph
from models.ranker import Ranker


@dataclass(frozen=True)
class CudaReport:
    """What was written for a card and why; `worst_difference` to the eager model is over `rows_checked` rows."""

    choice: CudaChoice
    files: tuple[str, ...]
    rows_checked: int
    worst_difference: float
    operators: tuple[str, ...]


def export_cuda(ranker: Ranker, report: ExportReport, sample: Inputs, choice: CudaChoice | None = None) -> CudaReport:
    """Write the float32 graphs for a card beside an exported one, whose tables they read.

    Without a `choice` their form is the one that is best for float32.
    Without features of both the request and the candidate there is nothing to join, and one graph alone.

    Raises:
        ExportError: a graph answers differently.
    """
    choice = choice or choose_cuda_form(ranker, report.form)
    source = dict(ir.load(report.path).metadata_props)
    facts = source | {FORM: choice.form, FORM_REASON: choice.reason}
    external = report.path.with_name(TABLES_FILE).is_file()
    both = all(any((part.ids, part.lists, part.dense)) for part in ranker.layouts)
    files = [CUDA_MODEL_FILE, *[CUDA_PACKED_FILE] * both]
    rows, worst, used = 0, 0.0, set[str]()
    with tempfile.TemporaryDirectory(dir=report.path.parent, prefix=".cuda-") as beside:
        for name in files:
            packed = name == CUDA_PACKED_FILE
            fresh = Path(beside) / name
            graph = ServingGraph(ranker, choice.form, one_request=not packed)
            metadata = facts | ({BATCHED: json.dumps(packed)} if packed else {})
            write_onnx(graph, ranker.schema, fresh, metadata, external_tables=external, packed=packed)
            parity = check_parity(ranker, fresh, sample, packed=packed, one_request=not packed)
            rows, worst = rows + parity.rows, max(worst, parity.worst)
            used.update(operators(fresh))
        for name in files:
            (Path(beside) / name).replace(report.path.with_name(name))
    return CudaReport(choice, tuple(files), rows, worst, tuple(sorted(used)))
