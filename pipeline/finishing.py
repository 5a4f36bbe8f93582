"""What export does beyond writing the graph: calibration, and int8 experts if the validation rows allow them.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from features.batches import BatchReader
from features.errors import ExportError
from features.inputs import Inputs
from features.schema import Schema
from features.settings import Settings
from models.calibration import calibrate
from models.export.quantise import quantise_experts
from models.ranker import Ranker
from models.tensors import TensorInputs
from pipeline.metrics import auc, rmse

AUC_LOSS = 0.0005
RMSE_LOSS = 0.001
"""Most that quantisation may cost: AUC absolutely, RMSE as a share of the float32 graph's."""
_ROWS = 4096

Array = NDArray[np.float32]


class ExportConfig(Settings):
    """How a trained model becomes a graph.

    `quantize`: ``experts`` computes experts and towers in int8, refused if that costs a task more than .0005 of AUC or
    .1 % of RMSE on the validation rows. `calibration`: ``platt`` fits each probability's slope and intercept there.
    """

    quantize: Literal["none", "experts"] = "none"
    calibration: Literal["none", "platt"] = "none"


class _Answers:
    """Answers [N, T] beside the labels and weights of the rows that have them."""

    def __init__(self, rows: list[tuple[Array, Array, Array]]) -> None:
        self.scores, self.labels, self.weights = (np.concatenate(part) for part in zip(*rows, strict=True))


@torch.no_grad()
def calibrate_on(ranker: Ranker, valid: Path) -> dict[str, dict[str, float]]:
    """Calibrate a ranker in place on encoded rows; slope and intercept by task."""
    ranker.eval()
    batches = BatchReader(valid, ranker.schema, _ROWS).epoch()
    rows = [(ranker(TensorInputs.from_numpy(b.inputs)).logits_BT.numpy(), b.labels, b.weights) for b in batches]
    if not rows:
        return {}
    given = _Answers(rows)
    return {name: asdict(p) for name, p in calibrate(ranker, given.scores, given.labels, given.weights).items()}


def quantise_if_equal(graph: Path, schema: Schema, valid: Path) -> dict[str, Any]:
    """Replace a graph by its int8 form, having compared both on encoded rows.

    Returns:
        By task the metric, its float32 and its int8 value.

    Raises:
        ExportError: a task loses more than is allowed, or there are no rows to tell; the graph is left as it was.
    """
    smaller = graph.with_name(f".{graph.name}-int8")
    try:
        quantise_experts(graph, smaller)
        figures = compared(schema, _answers(graph, schema, valid), _answers(smaller, schema, valid))
        refuse_losses(figures)
        smaller.replace(graph)
    finally:
        smaller.unlink(missing_ok=True)
    return figures


def compared(schema: Schema, whole: _Answers, small: _Answers) -> dict[str, Any]:
    """The metric of every task that has labels to tell by, of both graphs."""
    figures = {}
    for t, task in enumerate(schema.tasks):
        kept = whole.weights[:, t] > 0
        labels = whole.labels[kept, t]
        if len(labels) == 0 or (task.kind == "binary" and labels.min() == labels.max()):
            continue
        name, metric = ("auc", auc) if task.kind == "binary" else ("rmse", rmse)
        values = [float(metric(labels, each.scores[kept, t], name=task.name)) for each in (whole, small)]
        figures[task.name] = {"metric": name, "float32": values[0], "int8": values[1]}
    return figures


def refuse_losses(figures: dict[str, Any]) -> None:
    """Apply the rule to what `compared` found.

    Raises:
        ExportError: naming the tasks that lose too much, with both values.
    """
    if not figures:
        message = "the validation rows have no labels to judge int8 experts by; export without quantize"
        raise ExportError(message)
    lost = [
        f"{task}: {f['metric']} {f['float32']:.5f} -> {f['int8']:.5f}" for task, f in figures.items() if _loses(**f)
    ]
    if lost:
        message = (
            f"int8 experts cost too much on the validation rows ({'; '.join(lost)}; allowed are {AUC_LOSS} of AUC and "
            f"{RMSE_LOSS:.1%} of RMSE); export with quantize: none"
        )
        raise ExportError(message)


def _loses(metric: str, float32: float, int8: float) -> bool:
    if metric == "auc":
        return not int8 >= float32 - AUC_LOSS
    return not int8 <= float32 * (1 + RMSE_LOSS)


def answerer(graph: Path, schema: Schema) -> Callable[[Inputs], Array]:
    """What a graph answers to inputs, [N, T]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names, tasks = [node.name for node in session.get_inputs()], [task.name for task in schema.tasks]

    def answer(inputs: Inputs) -> Array:
        arrays = inputs.arrays()
        return np.stack(session.run(tasks, {name: arrays[name] for name in names}), axis=1)

    return answer


def _answers(graph: Path, schema: Schema, valid: Path) -> _Answers:
    answer = answerer(graph, schema)
    rows = [(answer(b.inputs), b.labels, b.weights) for b in BatchReader(valid, schema, _ROWS).epoch()]
    if not rows:
        message = f"{valid} has no rows to judge int8 experts by; export with quantize: none"
        raise ExportError(message)
    return _Answers(rows)
