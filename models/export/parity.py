"""Parity: the graph under onnxruntime against the eager model, on real and generated rows.

Shape legend: R requests, N candidate rows, T tasks, E experts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from contract.errors import ExportError
from contract.graph_names import ITEM_ROWS, REQUEST_OF, SHARES
from contract.inputs import PARTS, Inputs, PartInputs
from contract.prepared import left_over, taken, with_items
from contract.schema import Schema
from models.diagnostics.expert_health import union
from models.export.float_rounding import measure_rounding
from models.export.parity_sample import generate, sanitised
from models.export.unselected_experts import shifted, shifted_biases, shifts
from models.export_graph.item_shares import PreparedItems
from models.export_graph.shared_tables import PreparedShares
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs

TOLERANCE = 1e-5
"""Largest difference of a probability, of a regression value v times max(1, |v|), that needs no explanation."""
CEILING = 1e-3
"""Largest difference that rounding may explain: a model which rounding moves further is refused."""
_ROUNDING_FACTOR = 8.0
"""Differences lay at up to 3.4 times the measured rounding, over 6,000 answers of models made ill-conditioned."""
_SEED = 20260101
_GENERATED = ((1, 1), (1, 64), (300, 300), (1, 4096))
_PACKED = ((1, 1), (3, 64), (64, 4096))
_REACHING = (1, 512)
_TIED_SHARE = 1e-3
_SHOWN = 20
_ILL_CONDITIONED = (
    "; float32 rounding alone moves the model's answer on this row by as much: look for a column that hardly varies in "
    "the training data, or train with a lower learning rate or more weight decay"
)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """Rows compared, largest difference (relative to the tolerance's scale), and rows left out as ties.

    A tie is a row whose gate cannot tell two experts apart: rounding decides, in the eager model too. `rounded` counts
    the rows beyond `TOLERANCE` that differ by no more than the eager model's own rounding explains. `idle` are the
    experts, numbered over all levels, that no row selected as long as the gates were as trained; `unreached` those of
    them that no row selected under other biases either, so that they were not compared.
    """

    rows: int
    worst: float
    rounded: int
    ties: int
    idle: tuple[int, ...]
    unreached: tuple[int, ...]


@dataclass(frozen=True)
class _Case:
    """Inputs as the graph takes them, but for the columns that items bring.

    `request_N` is each candidate's request where the graph is a packed one, `item_N` its item's row where it is one
    over prepared `items`, `share_NH` the sum of its prepared rows where it takes that.
    """

    name: str
    inputs: Inputs
    request_N: NDArray[np.int64] | None = None
    item_N: NDArray[np.int64] | None = None
    items: PreparedItems | PreparedShares | None = None
    share_NH: Array | None = None

    def arrays(self, schema: Schema) -> dict[str, Any]:
        """By the names of a graph's inputs."""
        inputs = self.inputs
        if self.items is not None:
            parts = (left_over(getattr(inputs, part), schema.part(part), self.items.names) for part in PARTS)
            inputs = Inputs(*parts)
        return {**inputs.arrays(), REQUEST_OF: self.request_N, ITEM_ROWS: self.item_N, SHARES: self.share_NH}

    @property
    def paired(self) -> Inputs:
        """The same rows as the eager model takes them."""
        if self.request_N is None:
            return self.inputs
        return Inputs(taken(self.inputs.request, self.request_N), self.inputs.candidate)


def check_parity(
    ranker: Ranker,
    path: Path,
    sample: Inputs,
    *,
    packed: bool = False,
    items: PreparedItems | PreparedShares | None = None,
    one_request: bool = False,
) -> Parity:
    """Compare on the sample and on generated rows, more than 2,000 in all; experts that none selects by other biases.

    A row may differ by `TOLERANCE`. Beyond that it may differ by a small multiple of the eager model's own float32
    rounding on the same row, and never by more than `CEILING`.

    `items`: the graph is one over these, and each row is compared with one of them. `one_request`: it takes no request
    for each candidate, only one for all.

    Raises:
        ExportError: a difference above what is allowed, showing the worst row.
    """
    check = _Check(ranker, path)
    for case in _packed_cases(ranker, sample) if packed else _cases(ranker, sample, one_request=one_request):
        check.compare(_with_items(ranker, case, items))
    idle = check.unreached()
    rows = _with_items(ranker, _generated(ranker, *_REACHING, packed=packed), items)
    for shift in shifts(ranker, _SEED):
        if not check.unreached():
            break
        # The session reads these as they lie here: they must outlive it.
        biases = shifted_biases(path, shift)
        with shifted(ranker, shift):
            check.session = _session(path, biases)
            check.compare(replace(rows, name=f"{rows.name} with other biases of the gates"))
    return check.result(idle)


class _Check:
    """Compares case by case."""

    def __init__(self, ranker: Ranker, path: Path) -> None:
        self.ranker, self.session = ranker.eval(), _session(path)
        self.rows, self.worst, self.rounded, self.ties = 0, 0.0, 0, 0
        # What a static gate leaves out is not in the graph; what another gate of the level may take, is.
        self.reached_E = np.zeros(ranker.network.plan.experts, dtype=bool)
        for (first, level, plan), gate in zip(ranker.network.plan.gates(), ranker.network.typed_gates, strict=True):
            self.reached_E[[first + expert for expert in level.experts_of(plan)]] |= gate.static

    def compare(self, case: _Case) -> None:
        expected = self._eager(sanitised(case.paired, self.ranker.schema))
        actual = _run(self.session, self.ranker.schema, case)
        if not np.isfinite(actual).all():
            message = f"the graph answers with values that are not finite on {case.name}"
            raise ExportError(message)
        difference = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
        beyond = np.flatnonzero((difference > TOLERANCE).any(axis=1))
        allowed = np.full_like(difference, TOLERANCE)
        if len(beyond):
            inputs = TensorInputs.from_numpy(sanitised(case.paired, self.ranker.schema))
            rounding = measure_rounding(self.ranker, inputs, beyond)
            allowed[beyond] = np.clip(_ROUNDING_FACTOR * rounding.error_BT, TOLERANCE, CEILING)
            difference[beyond[rounding.tied_B]] = 0.0
            self.ties += int(rounding.tied_B.sum())
        if (difference > allowed).any():
            raise ExportError(_worst_row(self.ranker, case, difference, allowed, expected, actual))
        self.rows += len(difference)
        self.worst = max(self.worst, float(difference.max(initial=0.0)))
        self.rounded += int((difference > TOLERANCE).any(axis=1).sum())

    def result(self, idle: tuple[int, ...]) -> Parity:
        if self.ties > max(1, _TIED_SHARE * self.rows):
            message = (
                f"{self.ties} of {self.rows} rows hang on ties between experts; the gate has not learned to choose"
            )
            raise ExportError(message)
        return Parity(self.rows, self.worst, self.rounded, self.ties, idle, self.unreached())

    def unreached(self) -> tuple[int, ...]:
        return tuple(np.flatnonzero(~self.reached_E).tolist())

    @torch.no_grad()
    def _eager(self, inputs: Inputs) -> Array:
        output = self.ranker(TensorInputs.from_numpy(inputs))
        self.reached_E |= union(self.ranker.network.plan, output.routings, inputs.candidate.rows).any(dim=0).numpy()
        answers: Array = self.ranker.predictions(output.logits_BT).numpy()
        return answers


def _cases(ranker: Ranker, sample: Inputs, *, one_request: bool) -> Iterator[_Case]:
    first = _row(sample.request, 0)
    yield _Case("the sample", Inputs(first, sample.candidate) if one_request else sample)
    yield _Case("one candidate of the sample", Inputs(first, _row(sample.candidate, 0)))
    for requests, candidates in _GENERATED:
        yield _generated(ranker, 1 if one_request else requests, candidates)


def _packed_cases(ranker: Ranker, sample: Inputs) -> Iterator[_Case]:
    shuffled_N = np.random.default_rng(_SEED).integers(0, sample.request.rows, sample.candidate.rows)
    yield _Case("the sample with other users", sample, shuffled_N)
    for requests, candidates in _PACKED:
        yield _generated(ranker, requests, candidates, packed=True)


def _generated(ranker: Ranker, requests: int, candidates: int, *, packed: bool = False) -> _Case:
    rng = np.random.default_rng([_SEED, requests, candidates])
    name = f"generated rows ({requests} requests, {candidates} candidates)"
    inputs = generate(ranker.schema, requests, candidates, rng)
    return _Case(name, inputs, rng.integers(0, requests, candidates) if packed else None)


def _session(path: Path, instead: Mapping[str, onnxruntime.OrtValue] | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for name, value in (instead or {}).items():
        options.add_initializer(name, value)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _with_items(ranker: Ranker, case: _Case, items: PreparedItems | PreparedShares | None) -> _Case:
    """The case with items drawn at random, the last row, that of unknown items, among them."""
    if items is None:
        return case
    if isinstance(items, PreparedShares):
        inputs, share_NH = items.drawn(case.inputs, np.random.default_rng([_SEED, case.inputs.candidate.rows]))
        return replace(case, inputs=inputs, share_NH=share_NH, items=items)
    count = items.inputs.rows
    item_N = np.random.default_rng([_SEED, count]).integers(0, count, case.inputs.candidate.rows)
    item_N[0] = count - 1
    rows = taken(items.inputs, item_N)
    candidate = with_items(case.inputs.candidate, rows, ranker.schema.candidate, items.names)
    return replace(case, inputs=replace(case.inputs, candidate=candidate), item_N=item_N, items=items)


def _run(session: onnxruntime.InferenceSession, schema: Schema, case: _Case) -> Array:
    arrays = case.arrays(schema)
    tasks = [task.name for task in schema.tasks]
    answers = session.run(tasks, {node.name: arrays[node.name] for node in session.get_inputs()})
    return np.stack(answers, axis=1)


def _row(part: PartInputs, row: int) -> PartInputs:
    return taken(part, np.array([row]))


def _worst_row(ranker: Ranker, case: _Case, difference: Array, allowed: Array, expected: Array, actual: Array) -> str:
    # The row furthest beyond what it is allowed, which need not be the one that differs most.
    row, task = np.unravel_index(int((difference / allowed).argmax()), difference.shape)
    request = _row(case.paired.request, int(row) if case.paired.request.rows > 1 else 0)
    candidate = _row(case.inputs.candidate, int(row))
    return (
        f"the graph differs from the eager model by {difference[row, task]:.2e} (allowed {allowed[row, task]:.0e}) on "
        f"task {ranker.schema.tasks[task].name}, row {row} of {case.name}: eager {expected[row, task]:.7f}, graph "
        f"{actual[row, task]:.7f}; request {_shown(request)}, candidate {_shown(candidate)}"
    ) + (_ILL_CONDITIONED if allowed[row, task] == CEILING else "")


def _shown(part: PartInputs) -> str:
    lists = f"{part.list_values[:_SHOWN].tolist()} of {part.list_values.size}"
    return f"ids {part.ids[0].tolist()} lists {lists} dense {part.dense[0].round(4).tolist()}"
