"""What the report's template is given, out of an evaluation and what lies beside it."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.evaluation.comparing.paired_test import Difference
from pipeline.evaluation.result import Evaluation, better, headline_metric
from pipeline.evaluation.task_metrics import Estimate
from pipeline.report.charts import METRIC_LABELS
from pipeline.report.svg import number
from pipeline.report.version_test import AgainstCurrent

_NOTED = 0.03
"""How far from 1 predicted over actual must be, at the near end of its interval, for the card to say so."""


@dataclass(frozen=True)
class Card:
    """One task's headline: the metric, and the best baseline it is held against, or `why` there is none."""

    task: str
    metric: str = ""
    unit: str = ""
    estimate: Estimate | None = None
    rival: str = ""
    rival_value: float = 0.0
    verdict: str = "unclear"
    why: str = ""
    note: str = ""


def card(evaluation: Evaluation, task: str) -> Card:
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
    label, unit = METRIC_LABELS.get(metric, metric), evaluation.unit_of(task, metric).strip()
    ratio = evaluation.tasks[task].get("calibration")
    return Card(task, label, unit, mine, rival, rivals[rival], verdict, note=_off(ratio))


def _off(calibration: Estimate | None) -> str:
    if calibration is None or (calibration.low <= 1 + _NOTED and calibration.high >= 1 - _NOTED):
        return ""
    return f"predicted / actual is {number(calibration.value)}"


@dataclass(frozen=True)
class HeatMap:
    """Tasks by experts: how often each is selected (`share`) and its mean weight, both in [0, 1]."""

    tasks: tuple[str, ...]
    share: list[list[float]]
    weight: list[list[float]]


def heat_map(evaluation: Evaluation) -> HeatMap | None:
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


def texts(value: JsonValue) -> list[str]:
    """A list of texts, or nothing."""
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def plain(experts: Mapping[str, JsonValue]) -> dict[str, str]:
    """What is known of the experts besides the matrices."""
    return {
        name.replace("_", " "): number(value) if isinstance(value, float) else str(value)
        for name, value in experts.items()
        if isinstance(value, (str, int, float))
    }


@dataclass(frozen=True)
class PairedRow:
    """A metric of the version that is served and of the new model, side by side."""

    task: str
    metric: str
    unit: str
    found: Difference
    verdict: str
    css: str


def paired_rows(against: AgainstCurrent, evaluation: Evaluation) -> list[PairedRow]:
    """All metrics of all tasks, each task's headline first."""
    rows = []
    for task, metrics in against.differences.items():
        for metric, each in sorted(metrics.items(), key=lambda pair: not pair[1].headline):
            verdict = {"a": "worse", "b": "better", "neither": "no clear difference"}[each.better]
            css = {"a": "bad", "b": "good", "neither": ""}[each.better]
            unit = evaluation.unit_of(task, metric).strip()
            rows.append(PairedRow(task, metric.replace("_", " "), unit, each, verdict, css))
    return rows
