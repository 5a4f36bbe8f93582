"""A bundle's graphs for a card: which are written, in which precisions, and what the manifest tells of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from contract.graph_names import CUDA_MODEL_FILE, CUDA_PACKED_FILE, CUDA_VARIANTS, FORM_REASON, variant_of
from contract.inputs import Inputs
from contract.schema import Schema
from models.export import ExportReport
from models.export.cuda_export import CudaReport, export_cuda
from models.export.cuda_form import NO_EXPERTS, CardPrecision, CudaChoice, choose_cuda_form
from models.export.half import write_half
from models.export.onnx_file import annotate
from models.export.quantised_moe import Bits, write_quantised_moe
from models.export.table_inputs import tables_as_inputs
from models.export.table_precision import TableForm, store_tables
from models.ranker import Ranker
from pipeline.export.cuda_precision import judge_variant
from pipeline.export.post_export import ExportConfig

_GRAPHS = (CUDA_MODEL_FILE, CUDA_PACKED_FILE)
FILES = (*_GRAPHS, *(variant_of(name, precision) for name in _GRAPHS for precision in CUDA_VARIANTS))
NO_HALVES = f"graphs in half precision for a card, since {NO_EXPERTS} and all else stays float32"
_BITS: dict[str, Bits] = {"int8": 8, "int4": 4}


class CardGraphs(NamedTuple):
    """Plain values for the manifest, empty if nothing was written, and why a precision was left out, by precision."""

    facts: dict[str, Any]
    left_out: Mapping[CardPrecision, str]


def write_cuda_graphs(
    ranker: Ranker, report: ExportReport, sample: Inputs, out: Path, config: ExportConfig
) -> CardGraphs:
    """Write what `config` asks for, with its tables, and remove what an earlier export left.

    Raises:
        ExportError: a graph answers differently, or experts cannot have weights of 8 or 4 bits.
    """
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    if not config.for_cards():
        return CardGraphs({}, {})
    choices = {each: choose_cuda_form(ranker, report.form, config.cuda_form, each) for each in config.card_precisions()}
    left_out = {each: NO_HALVES for each, choice in choices.items() if (each, choice.form) == ("fp16", "dense")}
    reports: list[CudaReport] = []
    files: dict[str, dict[str, str]] = {}
    for precision, choice in choices.items():
        if precision in left_out:
            continue
        if not reports or reports[-1].choice.form != choice.form:
            reports.append(_exported(ranker, report, sample, choice, config.tables))
        for name in reports[-1].files:
            files[_written(report.path.with_name(name), precision, choice)] = choice._asdict()
    facts = {
        "files": dict(sorted(files.items())),
        "rows_checked": sum(each.rows_checked for each in reports),
        "worst_difference": max(each.worst_difference for each in reports),
        "operators": sorted({name for each in reports for name in each.operators}),
    }
    return CardGraphs(facts, left_out)


def _exported(
    ranker: Ranker, report: ExportReport, sample: Inputs, choice: CudaChoice, tables: TableForm
) -> CudaReport:
    """Float32 graphs in a form, over tables of so many bytes, in place of those of another form."""
    exported = export_cuda(ranker, report, sample, choice)
    for path in map(report.path.with_name, exported.files):
        if tables != "fp32":
            fresh = path.with_name(f".{path.name}-tables")
            store_tables(path, fresh, tables)
            fresh.replace(path)
    return exported


def _written(source: Path, precision: CardPrecision, choice: CudaChoice) -> str:
    """Write the variant of a float32 graph, which is none of its own at fp32; its name."""
    if precision == "fp32":
        return source.name
    target = source.with_name(variant_of(source.name, precision))
    if precision == "fp16":
        write_half(source, target)
    else:
        write_quantised_moe(source, target, _BITS[precision])
    annotate(target, {FORM_REASON: choice.reason})
    return target.name


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
