"""What export does beyond writing the graph: calibration, and smaller numbers if the validation rows allow them.

Shape legend: N rows, T tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from pydantic import Field

from contract.errors import ExportError
from contract.graph_names import MOST_EXPERTS, REQUEST_OF
from contract.inputs import Inputs
from contract.schema import Schema
from contract.settings import Settings
from features.batches import BatchReader
from models.export.calibration import Method, Platt, calibrate
from models.export.calibration_choice import choose_method
from models.export.cuda_form import CardPrecision, RequestedCudaForm
from models.export.form import MANY_ROWS, RequestedForm
from models.export.table_precision import TABLE_FILES, TableForm, store_tables
from models.heads.isotonic import Curve
from models.ranker import Ranker
from models.ranker_tensors import TensorInputs
from pipeline.evaluation.metrics import auc, log_loss, rmse
from pipeline.export.cheaper_stages import StagesConfig

AUC_LOSS = 0.0005
RMSE_LOSS = 0.001
"""Most that quantisation may cost: AUC absolutely, RMSE as a share of the float32 graph's."""
BATCH = 4096
"""Rows that are judged at a time."""

Array = NDArray[np.float32]
Change = Callable[[Path, Path], object]
"""Writes the graph at the first path in another way to the second, in the same directory."""


class ExportConfig(Settings):
    """How a trained model becomes a graph; docs/export.md has the details."""

    form: RequestedForm = "auto"
    """``sparse`` computes each expert for the rows that selected it, ``dense`` every one; ``auto``: what is cheaper."""
    require_sparse: bool = False
    """Refuse a gate that has not become as sparse as it promises, instead of exporting it dense with a warning."""
    typical_rows: int = Field(default=MANY_ROWS, ge=1)
    """Candidates of a usual request: under 64 the sparse form has to leave out more experts to be cheaper."""
    quantize: Literal["auto", "none", "experts"] = "auto"
    """``experts`` computes experts and towers in int8 on processors, refused if that costs too much on the validation
    rows; ``auto``: where it is faster on this machine and does not, or else says why not."""
    prune: float | None = Field(default=None, ge=0, lt=1)
    """Leave experts out that no task gives to more than this share of the validation rows, such as 0.001; refused if
    that costs too much on those rows. 0: those that no row selects; null: none."""
    merge: float | None = Field(default=None, ge=0, lt=1)
    """Let one expert answer for others that answer the validation rows alike: whose answers differ from its own by at
    most this share of their size, such as 0.1; refused if that costs too much on those rows. Null: none."""
    tables: TableForm = "fp32"
    """How embedding tables are stored; ``fp16`` and ``int8`` are refused if they cost too much on those rows."""
    calibration: Literal["auto", "none", "platt", "isotonic"] | dict[str, Literal["auto", "none"] | Method] = "auto"
    """How probabilities are fitted to the validation rows: one way for all tasks, or one by task.

    ``auto`` takes none, Platt's or the isotonic curve, whichever has the lowest log loss on rows that did not fit it.
    """
    prepare: Literal["auto", "items", "pairs", "users", "all", "none"] = "auto"
    """``items`` computes what hangs on the item alone at export, for a second graph; ``pairs`` and ``users`` do it for
    these as well, ``all`` for all three; ``auto``: for items and pairs where that pays."""
    item_rows: Literal["fp32", "fp16", "int8"] = "fp32"
    """How these rows are stored, where one shared layer reads them; refused if that costs too much."""
    stages: StagesConfig = StagesConfig()
    """Cheaper ways to answer many candidates, and under load."""
    packed: bool = False
    """Write a second graph beside the first that answers several requests in one run."""
    cuda: Literal["auto", "none", "fp32", "fp16", "int8", "int4"] = "auto"
    """Write graphs for a card: ``fp32``, and with ``fp16`` in half precision as well, with ``int8`` and ``int4`` with
    experts' weights of so many bits; ``auto``: fp32 where there is a card."""
    cuda_form: RequestedCudaForm = "auto"
    """How these compute the experts: ``wide``, ``moe``; ``auto``: by layers measured in the graph's precision. With
    weights of 8 and 4 bits it is ``moe`` always."""

    def methods(self, schema: Schema) -> Mapping[str, Method | Literal["auto"]]:
        """The calibration of each task that may have one; a task that a mapping leaves out is left as it is."""
        by_task = self.calibration
        if not isinstance(by_task, dict):
            by_task = {task.name: by_task for task in schema.tasks}
        return {task: method for task, method in by_task.items() if method != "none"}

    def for_cards(self) -> bool:
        """Whether graphs for a card are written."""
        return self.cuda != "none" if self.cuda != "auto" else torch.cuda.is_available()

    def card_precisions(self) -> tuple[CardPrecision, ...]:
        """Those of the graphs for cards: the one asked for, and float32 last."""
        if self.cuda == "auto" or self.cuda == "none" or self.cuda == "fp32":  # noqa: PLR1714 mypy narrows by these alone
            return ("fp32",)
        return self.cuda, "fp32"

    def changes(self) -> dict[str, Change]:
        """What is done to a finished graph, by what it is called in messages."""
        if self.tables == "fp32":
            return {}
        return {f"{self.tables} tables": partial(store_tables, form=self.tables)}


class LabelledAnswers:
    """Answers [N, T] beside the labels and weights of the rows that have them."""

    def __init__(self, rows: list[tuple[Array, Array, Array]]) -> None:
        self.scores, self.labels, self.weights = (np.concatenate(part) for part in zip(*rows, strict=True))


def _chosen(
    answers: LabelledAnswers, user: NDArray[np.uint64], methods: Mapping[str, Method | Literal["auto"]], schema: Schema
) -> dict[str, Method]:
    """The methods with ``auto`` decided; tasks that need none are left out."""
    chosen: dict[str, Method] = {}
    for t, task in enumerate(schema.tasks):
        method = methods.get(task.name)
        if method == "auto" and task.kind == "binary":
            method = choose_method(answers.scores[:, t], answers.labels[:, t], answers.weights[:, t], user)
        if method is not None and method != "auto":
            chosen[task.name] = method
    return chosen


@torch.no_grad()
def calibrate_on(ranker: Ranker, valid: Path, methods: Mapping[str, Method | Literal["auto"]]) -> dict[str, Any]:
    """Calibrate a ranker in place on encoded rows.

    Returns:
        By task what was fitted, and the log loss of those rows before and after.
    """
    if not methods:
        return {}
    ranker.eval()
    rows, users = [], []
    for batch in BatchReader(valid, ranker.schema, BATCH).epoch():
        logits_BT = ranker(TensorInputs.from_numpy(batch.inputs)).logits_BT.numpy()
        rows.append((logits_BT, batch.labels, batch.weights))
        users.append(batch.user)
    if not rows:
        return {}
    answers = LabelledAnswers(rows)
    chosen = _chosen(answers, np.concatenate(users), methods, ranker.schema)
    fitted = calibrate(ranker, answers.scores, answers.labels, answers.weights, chosen)
    names = [task.name for task in ranker.schema.tasks]
    return {name: _effect(calibration, answers, names.index(name)) for name, calibration in fitted.items()}


def _effect(calibration: Platt | Curve, answers: LabelledAnswers, task: int) -> dict[str, Any]:
    has_weight = answers.weights[:, task] > 0
    logits, labels = answers.scores[has_weight, task], answers.labels[has_weight, task]
    before, after = (
        log_loss(labels, 1 / (1 + np.exp(-x.astype(np.float64)))) for x in (logits, calibration.apply(logits))
    )
    method = "platt" if isinstance(calibration, Platt) else "isotonic"
    return {"method": method, **asdict(calibration), "log_loss": {"before": before, "after": after}}


def apply_if_equal(
    graph: Path,
    schema: Schema,
    valid: Path,
    changes: Mapping[str, Change],
    variants: Sequence[Path] = (),
) -> dict[str, Any]:
    """Change a graph step by step, having compared each step with the graph as it came, on encoded rows.

    `variants`: graphs beside it, of the same weights, that are changed alike if they are there.

    Returns:
        By change and task the metric, its value before all changes and after this one.

    Raises:
        ExportError: a task loses more than is allowed, or there are no rows to tell; steps before that one stay.
    """
    applied: dict[str, Any] = {}
    if not changes:
        return applied
    whole = answers_of(graph, schema, valid)
    for name, change in changes.items():
        fresh = graph.with_name(f".{graph.name}-changed")
        try:
            change(graph, fresh)
            figures = compared(schema, whole, answers_of(fresh, schema, valid))
            refuse_losses(name, figures)
            fresh.replace(graph)
            applied[name] = figures
            for variant in variants:
                if variant.is_file():
                    _change_alike(change, variant, fresh)
        finally:
            fresh.unlink(missing_ok=True)
    return applied


def _change_alike(change: Change, variant: Path, fresh: Path) -> None:
    try:
        change(variant, fresh)
    except ExportError:
        # A graph over prepared items may read no table at all: what it has not got need not be made smaller.
        return
    fresh.replace(variant)


def drop_unread_tables(directory: Path, kept: TableForm) -> None:
    """Remove the tables' files of other forms, which no graph of the directory reads."""
    for form, name in TABLE_FILES.items():
        if form != kept:
            (directory / name).unlink(missing_ok=True)


def compared(schema: Schema, whole: LabelledAnswers, changed: LabelledAnswers) -> dict[str, Any]:
    """The metric of every task that has labels to tell by, of both graphs."""
    figures = {}
    for t, task in enumerate(schema.tasks):
        has_weight = whole.weights[:, t] > 0
        labels = whole.labels[has_weight, t]
        if len(labels) == 0 or (task.kind == "binary" and labels.min() == labels.max()):
            continue
        name, metric = ("auc", auc) if task.kind == "binary" else ("rmse", rmse)
        values = [float(metric(labels, each.scores[has_weight, t], name=task.name)) for each in (whole, changed)]
        figures[task.name] = {"metric": name, "before": values[0], "after": values[1]}
    return figures


def refuse_losses(what: str, figures: dict[str, Any]) -> None:
    """Apply the rule to what `compared` found.

    Raises:
        ExportError: naming the tasks that lose too much, with both values.
    """
    if not figures:
        message = f"the validation rows have no labels to judge {what} by; export in float32"
        raise ExportError(message)
    lost = [
        f"{task}: {f['metric']} {f['before']:.5f} -> {f['after']:.5f}" for task, f in figures.items() if _loses(**f)
    ]
    if lost:
        message = (
            f"{what} cost too much on the validation rows ({'; '.join(lost)}; allowed are {AUC_LOSS} of AUC and "
            f"{RMSE_LOSS:.1%} of RMSE): export without them"
        )
        raise ExportError(message)


def _loses(metric: str, before: float, after: float) -> bool:
    if metric == "auc":
        return not after >= before - AUC_LOSS
    return not after <= before * (1 + RMSE_LOSS)


def answerer(graph: Path, schema: Schema) -> Callable[[Inputs], Array]:
    """What a graph answers to inputs, [N, T]."""
    run = graph_runner(graph, schema)

    def answer(inputs: Inputs) -> Array:
        arrays = inputs.arrays()
        own = inputs.request.rows > 1
        arrays[REQUEST_OF] = np.arange(inputs.candidate.rows, dtype=np.int64) * own
        return run(arrays)

    return answer


def graph_runner(graph: Path, schema: Schema) -> Callable[[Mapping[str, Any]], Array]:
    """What a graph answers to arrays by the names of its inputs, [N, T]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    names, tasks = [node.name for node in session.get_inputs()], [task.name for task in schema.tasks]
    constants: dict[str, Any] = {}
    if MOST_EXPERTS in names:
        constants[MOST_EXPERTS] = np.array([int(session.get_modelmeta().custom_metadata_map[MOST_EXPERTS])], np.int64)

    def run(arrays: Mapping[str, Any]) -> Array:
        feeds = {**arrays, **constants}
        return np.stack(session.run(tasks, {name: feeds[name] for name in names}), axis=1)

    return run


def answers_of(graph: Path, schema: Schema, valid: Path, rows: int | None = None) -> LabelledAnswers:
    """A graph's answers to encoded rows: to all, or to the first `rows` of them, in whole batches.

    Raises:
        ExportError: there are no rows.
    """
    answer = answerer(graph, schema)
    batches = islice(BatchReader(valid, schema, BATCH).epoch(), None if rows is None else max(1, rows // BATCH))
    answers = [(answer(b.inputs), b.labels, b.weights) for b in batches]
    if not answers:
        message = f"{valid} has no rows to judge smaller numbers by; export in float32"
        raise ExportError(message)
    return LabelledAnswers(answers)
