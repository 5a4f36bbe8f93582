"""What is wrong with a batch whose loss or gradient is not finite: its rows, their values, the first bad tensor.

Shape legend: B rows, T tasks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.inputs import PARTS, Batch
from contract.schema import Schema
from models.losses import RankingLoss
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.training.dense_form import as_it_is
from pipeline.training.late_check import StepFlags

_ROWS, _VALUES = 3, 8
"""How many rows, and of each how many values, a message shows: it must stay readable."""


@dataclass(frozen=True)
class BadBatch:
    """Where training broke: the `step`, the first tensor that is not finite, and the rows, in words."""

    step: int
    what: str
    rows: tuple[str, ...]

    def __str__(self) -> str:
        """One message of several lines."""
        shown = "".join(f"\n  {row}" for row in self.rows) or "\n  no single row: the sum over the batch overflows"
        return f"step {self.step}: {self.what} is not finite; rows of the batch:{shown}"


@dataclass(frozen=True)
class _BadTensor:
    name: str
    rows: NDArray[np.int64]


def diagnose_loss(model: nn.Module, ranker: Ranker, loss: RankingLoss, batch: Batch, step: int) -> BadBatch:
    """Run the batch forward once more, watched, and name what breaks first; every rank must call it together."""
    device = loss.unit_T.device
    with torch.no_grad(), as_it_is(), _watched(ranker) as faults:
        output = model(TensorInputs.from_numpy(batch.inputs).to(device))
        labels, weights = (torch.from_numpy(a).to(device) for a in (batch.labels, batch.weights))
        each_BT = loss.by_row(output, labels, weights)
    bad = _first_input(ranker.schema, batch) or next(iter(faults), None)
    if bad is None:
        tasks = [task.name for task in ranker.schema.tasks]
        broken = [name for name, column in zip(tasks, each_BT.unbind(1), strict=True) if not column.isfinite().all()]
        what, rows = f"the loss of {', '.join(broken or tasks)}", _bad_rows(each_BT)
    else:
        what, rows = f"the loss, and first of all {bad.name},", bad.rows
    return BadBatch(step, what, tuple(_row(ranker.schema, batch, int(row)) for row in rows[:_ROWS]))


def diagnose_gradient(ranker: Ranker, batch: Batch, step: int, columns_BD: Tensor | None) -> BadBatch:
    """Name the parameter whose gradient is not finite, and the rows whose gradient at the input matrix is not."""
    named = ((n, p.grad) for n, p in ranker.named_parameters() if p.grad is not None)
    bad = next((name for name, gradient in named if not gradient.isfinite().all()), "the tables")
    rows: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    if columns_BD is not None:
        rows = _bad_rows(columns_BD)
    return _of_gradient(ranker, batch, step, bad, rows)


def diagnose_flags(ranker: Ranker, batch: Batch, step: int, noted: tuple[Sequence[str], StepFlags]) -> BadBatch:
    """The same for a step that is over, by the parameters with gradients and what the step noted of them."""
    names, flags = noted
    bad = next((name for name, fine in zip(names, flags.gradients.numpy(), strict=False) if not fine), "the tables")
    return _of_gradient(ranker, batch, step, bad, np.flatnonzero(~flags.rows.numpy()))


def _of_gradient(ranker: Ranker, batch: Batch, step: int, bad: str, rows: NDArray[np.int64]) -> BadBatch:
    bad_rows = tuple(_row(ranker.schema, batch, int(row)) for row in rows[:_ROWS])
    return BadBatch(step, f"the gradient of {bad}", bad_rows)


@contextmanager
def _watched(ranker: Ranker) -> Iterator[list[_BadTensor]]:
    """The answers of modules that are not finite, as they come: the innermost and first first."""
    bad_tensors: list[_BadTensor] = []

    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, given: object, answer: object) -> None:
            del module, given
            if isinstance(answer, Tensor) and answer.is_floating_point() and not bool(answer.isfinite().all()):
                bad_tensors.append(_BadTensor(f"the output of {name}", _bad_rows(answer)))

        return modules[name].register_forward_hook(look)

    modules = {name: module for name, module in ranker.named_modules() if name}
    handles = [watch(name) for name in modules]
    try:
        yield bad_tensors
    finally:
        for handle in handles:
            handle.remove()


def _bad_rows(values_BX: Tensor) -> NDArray[np.int64]:
    return np.flatnonzero(values_BX.isfinite().flatten(1).all(1).logical_not().cpu().numpy())


def _first_input(schema: Schema, batch: Batch) -> _BadTensor | None:
    for name in PARTS:
        dense = getattr(batch.inputs, name).dense
        for column, spec in enumerate(schema.part(name).dense):
            rows = np.flatnonzero(~np.isfinite(dense[:, column]))
            if len(rows):
                return _BadTensor(f"feature {spec.name}", rows)
    return None


def _row(schema: Schema, batch: Batch, row: int) -> str:
    """A row's keys, its labels with their weights, and its encoded values, the largest first."""
    labels = [
        f"{task.name}={batch.labels[row, t]:g} (weight {batch.weights[row, t]:g})"
        for t, task in enumerate(schema.tasks)
    ]
    dense: list[tuple[str, float]] = []
    ids: list[str] = []
    for name in PARTS:
        part, specs = getattr(batch.inputs, name), schema.part(name)
        dense += [(spec.name, float(part.dense[row, c])) for c, spec in enumerate(specs.dense)]
        ids += [f"{spec.name}={part.ids[row, c]}" for c, spec in enumerate(specs.ids)]
    # NaN compares with nothing; it is what one looks for, so it comes first.
    dense.sort(key=lambda pair: -abs(pair[1]) if np.isfinite(pair[1]) else -np.inf)
    values = [*(f"{name}={value:g}" for name, value in dense), *ids][:_VALUES]
    keys = f"user hash {batch.user[row]}, item hash {batch.item[row]}"
    return f"{keys}: {', '.join(labels)}; encoded: {', '.join(values)}"
