"""A bundle's graphs for a card: which are written, in which precisions, and what the manifest tells of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, half_of
from contract.inputs import Inputs
from contract.schema import Schema
from models.export import ExportReport
from models.export.cuda_export import export_cuda
from models.export.half import write_half
from models.export.table_precision import store_tables
from models.ranker import Ranker
from pipeline.export.cuda_precision import judge_half
from pipeline.export.post_export import ExportConfig

FILES = tuple(name for each in (CUDA_MODEL_FILE, CUDA_PACKED_FILE) for name in (each, half_of(each)))


def write_cuda_graphs(
    ranker: Ranker, report: ExportReport, sample: Inputs, out: Path, config: ExportConfig, *, int8: bool = False
) -> dict[str, Any]:
    """Write what `config` asks for, with its tables, and remove what an earlier export left.

    `int8`: the bundle's experts are, and with them its golden answers, which no card would give.

    Returns:
        Plain values for the manifest; empty if nothing is written.

    Raises:
        ExportError: a graph answers differently.
    """
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    if int8 or not config.for_cards():
        return {}
    exported = export_cuda(ranker, report, sample, config.cuda_form)
    for name in exported.files:
        if config.tables != "fp32":
            fresh = out / f".{name}-tables"
            store_tables(out / name, fresh, config.tables)
            fresh.replace(out / name)
        if config.cuda == "fp16" and exported.form not in {"static", "dense"}:
            write_half(out / name, out / half_of(name))
    return asdict(exported)


def judge_cuda_graphs(out: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """What half precision costs, where graphs of it were written; by precision."""
    for name in (CUDA_PACKED_FILE, CUDA_MODEL_FILE):
        if (out / half_of(name)).is_file():
            return judge_half(out / name, out / half_of(name), schema, valid)
    return {}
