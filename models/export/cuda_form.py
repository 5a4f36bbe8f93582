"""Which form of the mixture is exported for a card, by a table of measured layers, and why.

The table beside this file, ``cuda_layers.json``, names the machine that it was measured on; ``python -m
benchmarks.gpu_serving --table`` writes a new one. The layer of the table that is nearest to the model's decides.
"""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import nn

from contract.errors import ExportError
from contract.settings import Settings
from models.experts.level import Level
from models.export_graph.card_mixture import misfit, slots_of
from models.export_graph.exported_network import Form
from models.ranker import Ranker

RequestedCudaForm = Literal["auto", "wide", "moe"]
CardPrecision = Literal["fp32", "fp16", "int8", "int4"]
"""What the experts of a graph for a card are computed in."""
CudaForm = Literal["static", "dense", "wide", "moe"]
TABLE = Path(__file__).with_name("cuda_layers.json")
NO_EXPERTS = "this architecture has no experts"
RUN_ROWS = (512, 4096)
"""Rows of a run: a server on a card joins the requests of several users, few when it has time, many under load."""
_Size = Annotated[int, Field(ge=1)]
_Times = dict[Literal["moe", "stacked", "wide", "dense", "routed"], Annotated[float, Field(gt=0)]]
_Measured = Literal["fp32", "fp16"]


class MeasuredLayer(Settings):
    """One layer of experts on the card: its sizes, and milliseconds by way of computing it and by precision."""

    inputs: _Size
    hidden: _Size
    outputs: _Size
    experts: _Size
    selected: _Size
    rows: _Size
    fp32: _Times
    fp16: _Times = {}

    def times(self, form: Literal["moe", "wide"], precision: _Measured) -> float | None:
        """Milliseconds of one of our forms; None where they were not measured."""
        times = self.fp32 if precision == "fp32" else self.fp16
        if form == "moe":
            return times.get("moe")
        # Experts that end with an activation have their second layers as one batched product, which `stacked` measured.
        if "stacked" in times or "wide" not in times:
            return times.get("stacked")
        exact = self.fp32
        return times["wide"] * (exact["stacked"] / exact["wide"] if {"stacked", "wide"} <= exact.keys() else 1.0)


class LayerTable(Settings):
    """What was measured, on which machine and when."""

    machine: str
    measured: str
    what: str = ""
    rows: Annotated[tuple[MeasuredLayer, ...], Field(min_length=1)]

    def measured_at(self, precision: _Measured) -> list[MeasuredLayer]:
        """The layers whose times in both forms are known at a precision."""
        return [each for each in self.rows if all(each.times(form, precision) for form in ("moe", "wide"))]


class LayerSize(NamedTuple):
    """A layer to be exported: `slots` experts are computed for a row, over all gates."""

    inputs: int
    hidden: int
    outputs: int
    experts: int
    slots: int


class CudaChoice(NamedTuple):
    """The form, and the reason in words."""

    form: CudaForm
    reason: str


@cache
def measured_layers(path: Path = TABLE) -> LayerTable:
    """Read the table."""
    return LayerTable.model_validate(json.loads(path.read_text(encoding="utf-8")))


def choose_cuda_form(
    ranker: Ranker,
    exported: Form,
    requested: RequestedCudaForm = "auto",
    precision: CardPrecision = "fp32",
    rows: Sequence[int] = RUN_ROWS,
) -> CudaChoice:
    """Decide how a card computes a ranker at a precision; `exported` is the form of its graph for processors.

    Raises:
        ExportError: experts with weights of 8 or 4 bits, which are the operator's, and it does not fit.
    """
    levels = ranker.network.typed_levels
    against = next((reason for level in levels if (reason := misfit(level))), "")
    if exported == "static" or not levels:
        against = "static gates: constant weights, unused experts deleted" if levels else NO_EXPERTS
    if precision in {"int8", "int4"}:
        return _operators(precision.removeprefix("int"), against)
    if exported == "static" or not levels:
        return CudaChoice("static" if levels else "dense", against)
    if against or requested != "auto":
        return CudaChoice("moe" if requested == "moe" and not against else "wide", against or "asked for")
    sizes = [size for level in levels for size in _sizes(level)]
    return _faster(sizes, rows, measured_layers(), "fp16" if precision == "fp16" else "fp32")


def _operators(bits: str, against: str) -> CudaChoice:
    """The one form whose weights can have so many bits."""
    if against:
        message = f"experts with weights of {bits} bits are those of com.microsoft.QMoE, which does not fit: {against}"
        raise ExportError(message)
    return CudaChoice("moe", f"weights of {bits} bits are those of com.microsoft.QMoE")


def _faster(sizes: Sequence[LayerSize], rows: Sequence[int], table: LayerTable, precision: _Measured) -> CudaChoice:
    """The form whose time is the smaller share of the other's, over all numbers of rows (by their geometric mean)."""
    by: _Measured = precision if table.measured_at(precision) else "fp32"
    moe, wide = (
        [sum(estimate(form, size, each, table, by) for size in sizes) for each in rows] for form in ("moe", "wide")
    )
    times = ", ".join(f"moe {m:.3f} ms and wide {w:.3f} at {n} rows" for m, w, n in zip(moe, wide, rows, strict=True))
    figures = f"{times}, in {by}, after the layers nearest to these measured on {table.machine}, {table.measured}"
    return CudaChoice("moe" if math.prod(moe) < math.prod(wide) else "wide", figures)


def estimate(
    form: Literal["moe", "wide"], size: LayerSize, rows: int, table: LayerTable, precision: _Measured = "fp32"
) -> float:
    """Milliseconds of a layer in a form, by the nearest one that was measured at this precision."""
    near = min(table.measured_at(precision), key=lambda each: _distance(each, size, rows))
    time = near.times(form, precision)
    assert time is not None  # noqa: S101 it was measured
    # The operator's work grows with the pairs of row and expert; below those measured it is a matter of launches.
    more = size.slots / near.selected if form == "moe" else size.experts / near.experts
    return time * max(1.0, more)


def _sizes(level: Level) -> list[LayerSize]:
    # The gates of a level share its slots among its banks; which of them a row takes is not known here.
    banks = level.typed_banks
    total = sum(bank.experts.count for bank in banks)
    slots = slots_of(level)
    layers = []
    for bank in banks:
        count, first = bank.experts.count, bank.experts.typed_blocks[0].linear
        assert isinstance(first, nn.Linear)  # noqa: S101 the first layer is; this tells the type checker
        inputs, hidden = first.in_features, first.out_features // count
        share = max(1, round(slots * count / total))
        layers.append(LayerSize(inputs, hidden, bank.experts.outputs, count, share))
    return layers


def _distance(each: MeasuredLayer, size: LayerSize, rows: int) -> float:
    def gap(measured: int, wanted: int) -> float:
        return abs(math.log(measured / wanted))

    work = gap(each.hidden * (each.inputs + each.outputs), size.hidden * (size.inputs + size.outputs))
    return gap(each.experts, size.experts) + gap(each.rows, rows) + work
