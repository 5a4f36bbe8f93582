"""The report's page: what goes where, rendered from the template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import JsonValue

from contract.errors import DataError
from contract.files import write_text
from pipeline.evaluation.curves import Curves
from pipeline.evaluation.result import Evaluation, TaskScores, better, headline_metric
from pipeline.evaluation.task_metrics import Estimate
from pipeline.report import charts
from pipeline.report.charts import Chart
from pipeline.report.svg import number

REPORT_FILE = "report.html"
Facts = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Card:
    """One task's headline: the metric, and the best baseline it is held against, or `why` there is none."""

    task: str
    metric: str = ""
    estimate: Estimate | None = None
    rival: str = ""
    rival_value: float = 0.0
    verdict: str = "unclear"
    why: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Tasks by experts: how often each is selected (`share`) and its mean weight, both in [0, 1]."""

    tasks: tuple[str, ...]
    share: list[list[float]]
    weight: list[list[float]]


def write_report(
    evaluation_dir: Path,
    path: Path | None = None,
    *,
    history: Path | None = None,
    facts: Facts | None = None,
    units: Mapping[str, str] | None = None,
) -> Path:
    """Render the report of an evaluation that `evaluate` wrote, and return its path.

    Args:
        evaluation_dir: Has ``evaluation.json`` and ``curves.json``.
        path: Where the report goes; None: ``report.html`` beside them.
        history: A ``history.json``: a list of epochs, or an object with one under ``epochs``; each epoch is an
            object whose numbers, however nested, become curves.
        facts: What to say about the run, such as rows of each split; shown as they are.
        units: Unit of each regression task's label.

    Raises:
        DataError: a file cannot be read.
    """
    path = path or evaluation_dir / REPORT_FILE
    evaluation, curves = Evaluation.load(evaluation_dir), Curves.load(evaluation_dir)
    epochs = () if history is None else read_history(history)
    write_text(render(evaluation, curves, history=epochs, facts=facts or {}, units=units or {}), path)
    return path


def read_history(path: Path) -> Sequence[Mapping[str, JsonValue]]:
    """Read the epochs of a ``history.json``.

    Raises:
        DataError: it cannot be read or has another shape.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read: {error}"
        raise DataError(message) from error
    epochs = found.get("epochs") if isinstance(found, dict) else found
    if not isinstance(epochs, list) or not all(isinstance(epoch, dict) for epoch in epochs):
        message = f"{path} has no list of epochs; expected is a list of objects, or one under 'epochs'"
        raise DataError(message)
    return epochs


def render(
    evaluation: Evaluation,
    curves: Curves,
    *,
    history: Sequence[Mapping[str, JsonValue]] = (),
    facts: Facts | None = None,
    units: Mapping[str, str] | None = None,
) -> str:
    """The report as one HTML document that refers to nothing outside itself."""
    environment = Environment(
        loader=PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters["number"] = number
    return environment.get_template("report.html").render(
        evaluation=evaluation,
        cards=[_card(evaluation, task) for task in evaluation.tasks],
        headline=charts.headline(evaluation),
        task_charts={task: _task_charts(evaluation, curves, task, units or {}) for task in evaluation.tasks},
        sources={"model": evaluation.tasks, **evaluation.baselines},
        metrics={task: list(scores) for task, scores in evaluation.tasks.items()},
        undefined=evaluation.undefined,
        training=charts.training(history),
        heat=_heat_map(evaluation),
        experts=_plain(evaluation.experts),
        expert_warnings=_texts(evaluation.experts.get("warnings")),
        slices=_slices(evaluation),
        headline_metric={task: headline_metric(scores) for task, scores in evaluation.tasks.items()},
        facts=facts or {},
    )


def _card(evaluation: Evaluation, task: str) -> Card:
    """Hold a task against its best baseline; the verdict looks at the model's interval, not only at its value."""
    metric = headline_metric(evaluation.tasks[task])
    if metric is None:
        return Card(task, why=evaluation.why_no_headline(task))
    mine = evaluation.tasks[task][metric]
    rivals = {name: scores[task][metric].value for name, scores in evaluation.baselines.items()}
    rival = next(iter(rivals))
    for name, value in rivals.items():
        rival = name if better(metric, value, rivals[rival]) else rival
    ends = [better(metric, end, rivals[rival]) for end in (mine.low, mine.high)]
    verdict = "better" if all(ends) else "unclear" if any(ends) else "worse"
    return Card(task, metric, mine, rival, rivals[rival], verdict)


def _task_charts(evaluation: Evaluation, curves: Curves, task: str, units: Mapping[str, str]) -> list[Chart]:
    scores, mine = evaluation.tasks[task], curves.tasks[task]
    if not mine.bins:
        return []
    if mine.kind == "regression":
        return [charts.predicted_against_actual(task, mine, units.get(task, ""))]
    calibration = scores["calibration"].value if "calibration" in scores else None
    found = [charts.roc(task, mine, scores["auc"].value)] if mine.roc else []
    return [*found, charts.reliability(task, mine, calibration)]


def _heat_map(evaluation: Evaluation) -> HeatMap | None:
    """Tasks by experts, where training told how often each expert was selected and with which weight."""
    share, weight = (_matrix(evaluation.experts.get(name)) for name in ("share", "weight"))
    tasks = tuple(evaluation.tasks)
    if len(share) != len(tasks) or len(weight) != len(tasks):
        return None
    return HeatMap(tasks, share, weight)


def _matrix(value: JsonValue) -> list[list[float]]:
    """A list of lists of numbers, or nothing."""
    rows = value if isinstance(value, list) else []
    return [[float(cell) for cell in row if isinstance(cell, (int, float))] for row in rows if isinstance(row, list)]


def _texts(value: JsonValue) -> list[str]:
    """A list of texts, or nothing."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _plain(experts: Mapping[str, JsonValue]) -> dict[str, str]:
    """What is known of the experts besides the matrices."""
    return {
        name.replace("_", " "): number(value) if isinstance(value, float) else str(value)
        for name, value in experts.items()
        if isinstance(value, (str, int, float))
    }


@dataclass(frozen=True)
class SliceRow:
    """One value of a slice: its rows and each task's scores there (empty where they cannot be judged)."""

    name: str
    rows: int
    tasks: TaskScores
    undefined: Mapping[str, Mapping[str, str]]


def _slices(evaluation: Evaluation) -> dict[str, list[SliceRow]]:
    return {
        name.replace("_", " "): [
            SliceRow(value, part.rows, part.tasks, part.undefined) for value, part in values.items()
        ]
        for name, values in evaluation.slices.items()
    }
