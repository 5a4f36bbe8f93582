"""The report's charts, each from the evaluation's own numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from pipeline.evaluation.result import Evaluation, headline_metric
from pipeline.evaluation.task_metrics import Estimate
from pipeline.report.svg import Axis, Plot, axis, number

COLOURS = 8
MODEL = "model"
METRIC_LABELS = {"auc": "AUC", "rmse": "RMSE"}
_LONGEST_NAME = 20
_COUNTERS = frozenset({"epoch", "step", "rows", "seconds"})


@dataclass(frozen=True)
class Chart:
    """A plot with its caption and, where it has several lines, their names by colour class."""

    caption: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()


def headline(evaluation: Evaluation) -> list[Chart]:
    """The model and each baseline with intervals: all AUCs on one axis, each RMSE on its own."""
    groups: dict[str, list[str]] = {}
    for task, scores in evaluation.tasks.items():
        metric = headline_metric(scores)
        if metric is None:
            continue
        groups.setdefault(metric if metric == "auc" else f"{metric} {task}", []).append(task)
    return [_intervals(evaluation, group.partition(" ")[0], tasks) for group, tasks in groups.items()]


def _intervals(evaluation: Evaluation, metric: str, tasks: list[str]) -> Chart:
    sources = {MODEL: evaluation.tasks, **evaluation.baselines}
    intervals: list[tuple[float, str, str, Estimate]] = []
    for row, task in enumerate(tasks):
        for place, (name, scores) in enumerate(sources.items()):
            if metric in scores[task]:
                height = row + (place + 1) / (len(sources) + 1)
                intervals.append((height, f"c{place}", f"{task}, {name}", scores[task][metric]))
    unit = evaluation.unit_of(tasks[0], metric)
    label = f"{METRIC_LABELS.get(metric, metric)}{unit and ','}{unit}"
    x = axis([edge for *_, e in intervals for edge in (e.low, e.high)], label)
    names = [task if len(task) <= _LONGEST_NAME else f"{task[: _LONGEST_NAME - 1]}…" for task in tasks]
    height = 64 + 12 * (len(sources) + 1) * len(tasks)
    plot = Plot(x, Axis(0.0, len(tasks), "", ()), f"{metric} with 95 % intervals", 760, height, rows=names, left=150)
    for y, colour, name, e in intervals:
        tip = f"{name}: {metric} {number(e.value)} [{number(e.low)}, {number(e.high)}], {e.n} rows"
        plot.span((e.low, y), (e.high, y), f"bar {colour}", tip)
        plot.dot((e.value, y), f"dot {colour}", tip, 4.5)
    legend = tuple((f"c{place}", name) for place, name in enumerate(sources))
    better = "further right is better" if metric == "auc" else "further left is better"
    return Chart(f"{label} with 95 % intervals; {better}", plot.svg(), legend)


def training(history: Sequence[Mapping[str, JsonValue]]) -> list[Chart]:
    """One chart for each kind of number that epochs have, such as ``valid.like.auc``: kind auc, line ``valid.like``."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for index, epoch in enumerate(history, start=1):
        for path, value in _numbers(epoch):
            *where, kind = path
            groups.setdefault(kind, {}).setdefault(".".join(where) or kind, []).append((float(index), value))
    return [_epochs(kind, lines, len(history)) for kind, lines in groups.items() if kind not in _COUNTERS]


def _numbers(
    value: JsonValue | Mapping[str, JsonValue], path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], float]]:
    """Every number of a nested mapping with the keys that lead to it."""
    if isinstance(value, Mapping):
        return [series for key, inner in value.items() for series in _numbers(inner, (*path, key))]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and path:
        return [(path, float(value))]
    return []


def _epochs(kind: str, lines: dict[str, list[tuple[float, float]]], epochs: int) -> Chart:
    y = axis([value for points in lines.values() for _, value in points], "")
    x = axis([1.0, float(max(epochs, 2))], "epoch")
    whole = tuple(tick for tick in x.ticks if tick == int(tick) and tick >= 1)
    plot = Plot(Axis(x.low, x.high, x.label, whole), y, f"{kind} by epoch")
    legend = []
    for place, (name, points) in enumerate(lines.items()):
        colour = f"c{place % COLOURS}"
        plot.line(points, f"line {colour}", name)
        for point in points:
            plot.dot(point, f"dot {colour}", f"{name}, epoch {point[0]:.0f}: {number(point[1])}", 2.4)
        legend.append((colour, name))
    return Chart(kind.replace("_", " "), plot.svg(), tuple(legend) if len(legend) > 1 or kind not in lines else ())
