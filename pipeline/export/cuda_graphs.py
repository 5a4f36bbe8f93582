"""A bundle's graphs for a card: which are written, in which precisions, and what the manifest tells of them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, CUDA_VARIANTS, variant_of
from contract.inputs import Inputs
from contract.schema import Schema
from models.export import ExportReport
from models.export.cuda_export import export_cuda
from models.export.half import write_half
from models.export.quantised_moe import Bits, write_quantised_moe
from models.export.table_inputs import tables_as_inputs
from models.export.table_precision import store_tables
from models.ranker import Ranker
from pipeline.export.cuda_precision import judge_variant
from pipeline.export.post_export import ExportConfig

_GRAPHS = (CUDA_MODEL_FILE, CUDA_PACKED_FILE)
FILES = (*_GRAPHS, *(variant_of(name, precision) for name in _GRAPHS for precision in CUDA_VARIANTS))
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}


def write_cuda_graphs(
    ranker: Ranker, report: ExportReport, sample: Inputs, out: Path, config: ExportConfig
) -> dict[str, Any]:
    """Write what `config` asks for, with its tables, and remove what an earlier export left.

    Returns:
        Plain values for the manifest; empty if nothing is written.

    Raises:
        ExportError: a graph answers differently.
    """
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    if not config.for_cards():
        return {}
    # Experts of 8 or 4 bits are the operator's; where it does not fit, the rewriting says so.
    form = "moe" if config.cuda in _BITS and config.cuda_form == "auto" else config.cuda_form
    exported = export_cuda(ranker, report, sample, form)
    for name in exported.files:
        if config.tables != "fp32":
            fresh = out / f".{name}-tables"
            store_tables(out / name, fresh, config.tables)
            fresh.replace(out / name)
        if config.cuda in _BITS:
            write_quantised_moe(out / name, out / variant_of(name, config.cuda), _BITS[config.cuda])
        elif config.cuda == "fp16" and exported.form not in {"static", "dense"}:
            write_half(out / name, out / variant_of(name, "fp16"))
    return asdict(exported)


def judge_cuda_graphs(out: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """What half precision and smaller weights cost, where graphs of them were written; by precision."""
    facts: dict[str, Any] = {}
    for precision in CUDA_VARIANTS:
        written = [name for name in reversed(_GRAPHS) if (out / variant_of(name, precision)).is_file()]
        if written:
            variant = out / variant_of(written[0], precision)
            facts |= judge_variant(precision, out / written[0], variant, schema, valid)
    return facts


def take_tables_out(out: Path) -> None:
    """Make inputs of the tables that lie in files, when nothing else is to be done to the graphs."""
    for name in FILES:
        if (out / name).is_file():
            tables_as_inputs(out / name)
