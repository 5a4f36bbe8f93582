"""Parity: the graph under onnxruntime against the eager model, on real and generated rows.

Shape legend: R requests, N candidate rows, T tasks, E experts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from features.errors import ExportError
from features.inputs import Inputs, PartInputs
from models.export.sample import generate, sanitised
from models.ranker import Ranker
from models.tensors import TensorInputs

TOLERANCE = 1e-5
"""Largest difference of a probability; of a regression value v, times max(1, |v|)."""
_SEED = 20260101
_GENERATED = ((1, 1), (1, 64), (300, 300), (1, 4096))
_TIE_NOISE = 2e-5
_TIE_TRIALS = 16
_TIED_SHARE = 1e-3

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """Rows compared, largest difference (relative to the tolerance's scale), and rows left out as ties.

    A tie is a row whose gate cannot tell two experts apart: rounding decides, in the eager model too.
    """

    rows: int
    worst: float
    ties: int


@dataclass(frozen=True)
class _Case:
    name: str
    inputs: Inputs


def check_parity(ranker: Ranker, path: Path, sample: Inputs) -> Parity:
    """Compare on the sample and on generated rows, more than 2,000 in all.

    Raises:
        ExportError: a difference above the tolerance, showing the worst row.
    """
    session = _session(path)
    rows, worst, ties = 0, 0.0, 0
    for case in _cases(ranker, sample):
        expected = _eager(ranker, sanitised(case.inputs, ranker.schema))
        actual = _run(session, [task.name for task in ranker.schema.tasks], case.inputs)
        if not np.isfinite(actual).all():
            message = f"the graph answers with values that are not finite on {case.name}"
            raise ExportError(message)
        difference = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
        tied = _tied_rows(ranker, case.inputs, np.flatnonzero((difference > TOLERANCE).any(axis=1)))
        difference[tied] = 0.0
        if difference.max(initial=0.0) > TOLERANCE:
            raise ExportError(_worst_row(ranker, case, difference, expected, actual))
        rows, worst, ties = rows + len(difference), max(worst, float(difference.max(initial=0.0))), ties + len(tied)
    if ties > max(1, _TIED_SHARE * rows):
        message = f"{ties} of {rows} rows hang on ties between experts; the gate has not learned to choose"
        raise ExportError(message)
    return Parity(rows=rows, worst=worst, ties=ties)


def _cases(ranker: Ranker, sample: Inputs) -> Iterator[_Case]:
    yield _Case("the sample", sample)
    yield _Case("one candidate of the sample", _first_row(sample))
    rng = np.random.default_rng(_SEED)
    for requests, candidates in _GENERATED:
        name = f"generated rows ({requests} requests, {candidates} candidates)"
        yield _Case(name, generate(ranker.schema, requests, candidates, rng))


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, tasks: list[str], inputs: Inputs) -> Array:
    arrays = inputs.arrays()
    answers = session.run(tasks, {node.name: arrays[node.name] for node in session.get_inputs()})
    return np.stack(answers, axis=1)


@torch.no_grad()
def _eager(ranker: Ranker, inputs: Inputs) -> Array:
    ranker.eval()
    answers: Array = ranker.predictions(ranker(TensorInputs.from_numpy(inputs)).logits_BT).numpy()
    return answers


@torch.no_grad()
def _tied_rows(ranker: Ranker, inputs: Inputs, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    # A row is a tie if noise of the size of rounding errors in the routing logits changes what its gates select.
    if len(rows) == 0:
        return rows
    ranker.eval()
    paired = TensorInputs.from_numpy(sanitised(inputs, ranker.schema)).paired()
    hooks = [gate.projection.register_forward_hook(_noise) for gate in ranker.network.typed_gates if gate.projection]
    try:
        trials = [_selected(ranker, paired) for _ in range(_TIE_TRIALS)] if hooks else []
    finally:
        for hook in hooks:
            hook.remove()
    changed = [(trial != trials[0]).any(axis=1) for trial in trials[1:]]
    return rows[np.logical_or.reduce(changed)[rows]] if changed else rows[:0]


def _selected(ranker: Ranker, paired: TensorInputs) -> NDArray[np.bool_]:
    routings = ranker(paired).routings
    return torch.cat([r.selected_BE.expand(paired.rows, -1) for r in routings], dim=1).numpy()


def _noise(module: torch.nn.Module, inputs: object, logits_BL: torch.Tensor) -> torch.Tensor:
    del module, inputs
    return logits_BL + torch.empty_like(logits_BL).uniform_(-_TIE_NOISE, _TIE_NOISE)


def _first_row(inputs: Inputs) -> Inputs:
    return Inputs(_row(inputs.request, 0), _row(inputs.candidate, 0))


def _row(part: PartInputs, row: int) -> PartInputs:
    ends = part.list_lengths.reshape(-1).cumsum().reshape(part.list_lengths.shape)[:, row]
    lengths = part.list_lengths[:, row : row + 1]
    pieces = [part.list_values[end - n : end] for end, n in zip(ends, lengths[:, 0], strict=True)]
    return PartInputs(
        ids=part.ids[row : row + 1],
        list_values=np.concatenate(pieces) if pieces else part.list_values[:0],
        list_lengths=np.ascontiguousarray(lengths),
        dense=part.dense[row : row + 1],
    )


def _worst_row(ranker: Ranker, case: _Case, difference: Array, expected: Array, actual: Array) -> str:
    row, task = np.unravel_index(int(difference.argmax()), difference.shape)
    request = _row(case.inputs.request, int(row) if case.inputs.request.rows > 1 else 0)
    candidate = _row(case.inputs.candidate, int(row))
    return (
        f"the graph differs from the eager model by {difference[row, task]:.2e} (allowed {TOLERANCE:.0e}) on task "
        f"{ranker.schema.tasks[task].name}, row {row} of {case.name}: eager {expected[row, task]:.7f}, graph "
        f"{actual[row, task]:.7f}; request {_shown(request)}, candidate {_shown(candidate)}"
    )


def _shown(part: PartInputs) -> str:
    return f"ids {part.ids[0].tolist()} lists {part.list_values.tolist()} dense {part.dense[0].round(4).tolist()}"
