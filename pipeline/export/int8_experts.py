"""int8 forms of a bundle's graphs, for processors, beside the float32 ones that every other device takes.

The steps of their inputs come from training rows, the judgement from validation rows, the time from this machine.

Shape legend: N rows, T tasks.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from onnxscript import ir

from contract.errors import ExportError
from contract.graph_names import FEWER_FILE, MODEL_FILE, PACKED_FILE, PREPARED_FILE, int8_of
from contract.inputs import Inputs
from contract.prepared import taken
from contract.schema import Schema
from features.batches import BatchReader
from models.export.activation_ranges import Ranges, layers_of, measure_ranges
from models.export.quantise import quantise_experts
from pipeline.export.int8_golden import state_tolerances
from pipeline.export.post_export import LabelledAnswers, answerer, answers_of, compared, refuse_losses

INT8 = "int8 experts"
ROWS, BATCH = 65_536, 4_096
"""Training rows that say between which values a layer's inputs lie, and how many run at a time."""
WORTH = 2**15
"""Weights of experts and towers from which on ``auto`` takes int8: smaller layers cost less than rounding does."""
LEAST_ROWS, LEAST_OF_A_LABEL = 1_000, 20
"""Validation rows of a task, and of its rarer label, below which the metrics tell nothing of so small a change."""
CANDIDATES, ROUNDS = (1, 10, 100), 100
SLOWER, FASTER = 1.15, 0.92
"""Time over float32's: at most the first with any number of candidates, at most the second with the largest.

Both lie where measured models do not: a limit within the spread of a measurement would choose another form each night.
With one candidate 15 % of a graph are some ten microseconds of a request that takes hundreds.
"""
_GRAPHS = (MODEL_FILE, PACKED_FILE, PREPARED_FILE, FEWER_FILE)
_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


class Int8Job(NamedTuple):
    """A directory of finished graphs and golden requests, and the features that they were made for."""

    out: Path
    schema: Schema
    features_dir: Path
    sample: Inputs
    wanted: Literal["auto", "none", "experts"]
    float32: Mapping[str, Any] = MappingProxyType({})
    """By task the figures of an earlier change, such as smaller tables; `before` is of the graph before all changes."""


@dataclass(frozen=True)
class Int8Report:
    """Which graphs have an int8 form beside them, or the `reason` why none has."""

    files: tuple[str, ...] = ()
    reason: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """By task the metric of the validation rows before and after."""
    time_over_float32: Mapping[str, float] = field(default_factory=dict)
    """By candidates of a request, of the general graph on the exporting machine."""
    instructions: tuple[str, ...] = ()
    """What that machine's processor multiplies bytes with."""
    tolerances: Mapping[str, float] = field(default_factory=dict)
    """By file how far golden answers may lie from the float32 ones."""

    def __str__(self) -> str:
        if not self.files:
            return f"experts stay float32: {self.reason}"
        times = ", ".join(f"{ratio:.2f} at {count}" for count, ratio in self.time_over_float32.items())
        how = ", ".join(self.instructions) or "no special instructions"
        return f"int8 experts in {', '.join(self.files)}: time over float32 {times} candidates ({how})"


def write_int8(job: Int8Job) -> Int8Report:
    """Write the int8 forms of a directory's graphs, and remove what an earlier export left.

    Under ``auto`` nothing is written where it costs too much, is not faster here, or cannot be judged.

    Raises:
        ExportError: int8 was asked for and costs too much, cannot be judged, or there is no layer to quantise.
    """
    _remove(job.out)
    if job.wanted == "none":
        return Int8Report(reason="not asked for")
    try:
        report = _written(job)
        return replace(report, tolerances=state_tolerances(job.out, job.schema, report.files))
    except ExportError as error:
        _remove(job.out)
        if job.wanted == "experts":
            raise
        return Int8Report(reason=str(error), instructions=processor_instructions())


def _remove(out: Path) -> None:
    for name in _GRAPHS:
        (out / int8_of(name)).unlink(missing_ok=True)


def _written(job: Int8Job) -> Int8Report:
    is_optional = job.wanted == "auto"
    quantise = Int8Experts(job.features_dir / "train", job.schema, least_weights=WORTH * is_optional)
    graph, int8 = job.out / MODEL_FILE, job.out / int8_of(MODEL_FILE)
    quantise(graph, int8)
    times = time_ratios(answerer(graph, job.schema), answerer(int8, job.schema), job.sample)
    if is_optional:
        require_faster(times)
    whole = answers_of(graph, job.schema, job.features_dir / "valid")
    if is_optional:
        require_enough(job.schema, whole)
    figures = compared(job.schema, whole, answers_of(int8, job.schema, job.features_dir / "valid"))
    # What smaller tables cost counts, too: two changes may not lose twice what one may.
    figures = {task: {**f, "before": job.float32.get(task, f)["before"]} for task, f in figures.items()}
    refuse_losses(INT8, figures)
    files = [int8.name, *_variants(job.out, quantise)]
    return Int8Report(tuple(files), "", figures, times, processor_instructions())


def _variants(out: Path, quantise: "Int8Experts") -> Iterator[str]:
    for name in _GRAPHS[1:]:
        # Rows of items may hold an expert's only layer: what a graph has not got need not be made smaller.
        if (out / name).is_file() and any(layers_of(ir.load(out / name).graph)):
            target = out / int8_of(name)
            quantise(out / name, target)
            yield target.name


class Int8Experts:
    """Writes a graph with int8 experts and towers; graphs of the same weights take the ranges of the first."""

    def __init__(self, train: Path, schema: Schema, *, least_weights: int = 0) -> None:
        """Take the training rows; a graph with fewer than `least_weights` in its layers is left as it is."""
        self.train, self.schema, self.least_weights = train, schema, least_weights
        self._ranges: Ranges | None = None

    def __call__(self, source: Path, target: Path) -> None:
        """Quantise one graph.

        Raises:
            ExportError: there is no layer to quantise, too few weights, or no rows.
        """
        if self._ranges is None:
            self._require_worth(source)
            self._ranges = measure_ranges(source, self._runs())
        quantise_experts(source, target, self._ranges)

    def _runs(self) -> Iterator[Mapping[str, Any]]:
        # Shuffled, so that the rows are of all days.
        batches = BatchReader(self.train, self.schema, BATCH, seed=0).epoch()
        return (batch.inputs.arrays() for batch in islice(batches, ROWS // BATCH))

    def _require_worth(self, source: Path) -> None:
        weights = sum(layer.weight_IO.size for layer in layers_of(ir.load(source).graph))
        if weights < self.least_weights:
            message = f"experts and towers have {weights} weights; below {self.least_weights} int8 spares nothing"
            raise ExportError(message)


def require_enough(schema: Schema, answers: LabelledAnswers) -> None:
    """See whether the validation rows can tell what int8 costs.

    Raises:
        ExportError: a task has too few of them, or too few of one label.
    """
    for t, task in enumerate(schema.tasks):
        labels = answers.labels[answers.weights[:, t] > 0, t]
        rarer = min(int((labels > 0).sum()), int((labels <= 0).sum())) if task.kind == "binary" else len(labels)
        if len(labels) < LEAST_ROWS or rarer < LEAST_OF_A_LABEL:
            message = (
                f"{task.name} has {len(labels)} validation rows, {rarer} of its rarer label: fewer than the "
                f"{LEAST_ROWS} and {LEAST_OF_A_LABEL} that can tell what int8 costs"
            )
            raise ExportError(message)


def time_ratios(whole: Callable[[Inputs], Any], int8: Callable[[Inputs], Any], sample: Inputs) -> dict[str, float]:
    """Time of an int8 graph over the float32 one's, by candidates of a request: the least of interleaved rounds."""
    ratios = {}
    for count in CANDIDATES:
        inputs = _one_request(sample, count)
        least = [float("inf")] * 2
        for _ in range(ROUNDS):
            for place, answer in enumerate((whole, int8)):
                begin = time.thread_time()
                answer(inputs)
                least[place] = min(least[place], time.thread_time() - begin)
        ratios[str(count)] = least[1] / least[0]
    return ratios


def _one_request(sample: Inputs, count: int) -> Inputs:
    rows = np.arange(count) % sample.candidate.rows
    return Inputs(taken(sample.request, np.zeros(1, np.intp)), taken(sample.candidate, rows))


def require_faster(ratios: Mapping[str, float]) -> None:
    """See whether int8 pays on this machine.

    Raises:
        ExportError: it is clearly slower with some number of candidates, or hardly faster with the largest.
    """
    if max(ratios.values()) > SLOWER or ratios[str(CANDIDATES[-1])] > FASTER:
        seen = ", ".join(f"{ratio:.2f} of the time at {count}" for count, ratio in ratios.items())
        message = f"int8 is not faster on this machine ({seen} candidates; instructions: {_named()})"
        raise ExportError(message)


def _named() -> str:
    return ", ".join(processor_instructions()) or "none for bytes"


def processor_instructions() -> tuple[str, ...]:
    """What this machine's processor has for products of bytes, by Linux' names; empty where Linux does not tell."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8").split()) if info.is_file() else set()
    return tuple(name for name in _INSTRUCTIONS if name in flags)
