"""Which form of the mixture is exported for a card, by a table of measured layers, and why.

The table beside this file, ``cuda_layers.json``, names the machine that it was measured on; ``python -m
benchmarks.gpu_serving --table`` writes a new one. The layer of the table that is nearest to the model's decides.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from torch import nn

from contract.settings import Settings
from models.experts.level import Level
from models.export_graph.card_mixture import misfit, slots_of
from models.export_graph.exported_network import Form
from models.ranker import Ranker

RequestedCudaForm = Literal["auto", "wide", "moe"]
CudaForm = Literal["static", "dense", "wide", "moe"]
TABLE = Path(__file__).with_name("cuda_layers.json")
RUN_ROWS = 512
"""Rows of a usual run: a server on a card joins the requests of several users until there are so many."""
_Size = Annotated[int, Field(ge=1)]
_Times = dict[Literal["moe", "stacked", "wide", "dense", "routed"], Annotated[float, Field(gt=0)]]


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


class LayerTable(Settings):
    """What was measured, on which machine and when."""

    machine: str
    measured: str
    what: str = ""
    rows: Annotated[tuple[MeasuredLayer, ...], Field(min_length=1)]


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


def choose_cuda_form(ranker: Ranker, exported: Form, requested: RequestedCudaForm, rows: int = RUN_ROWS) -> CudaChoice:
    """Decide how a card computes a ranker whose graph for processors has the form `exported`."""
    levels = ranker.network.typed_levels
    if exported == "static" or not levels:
        why = "static gates: constant weights, unused experts deleted" if levels else "this architecture has no experts"
        return CudaChoice("static" if levels else "dense", why)
    against = next((reason for level in levels if (reason := misfit(level))), "")
    if against or requested != "auto":
        form = "wide" if against else requested
        return CudaChoice("moe" if form == "moe" else "wide", against or "asked for")
    sizes = [size for level in levels for size in _sizes(level)]
    table = measured_layers()
    moe, wide = (sum(estimate(form, size, rows, table) for size in sizes) for form in ("moe", "wide"))
    figures = (
        f"moe {moe:.3f} ms, wide {wide:.3f} ms at {rows} rows, after the layers nearest to these that were measured"
    )
    return CudaChoice("moe" if moe < wide else "wide", f"{figures} on {table.machine}, {table.measured}")


def estimate(form: Literal["moe", "wide"], size: LayerSize, rows: int, table: LayerTable) -> float:
    """Milliseconds of a layer in a form, by the nearest one that was measured."""
    near = min(table.rows, key=lambda each: _distance(each, size, rows))
    if form == "moe":
        # The operator's work grows with the pairs of row and expert; below those measured it is a matter of launches.
        return near.fp32["moe"] * max(1.0, size.slots / near.selected)
    # Experts that end with an activation have their second layers as one batched product, which `stacked` measured.
    times = near.fp32
    return (times["stacked"] if "stacked" in times else times["wide"]) * max(1.0, size.experts / near.experts)


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
