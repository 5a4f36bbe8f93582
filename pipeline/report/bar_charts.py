"""Charts with a name a row: what features are worth, and calibration by slice."""

from collections.abc import Sequence

from pipeline.evaluation.importance import Importance
from pipeline.evaluation.result import Slice
from pipeline.report.charts import METRIC_LABELS, Chart
from pipeline.report.svg import Axis, Plot, axis, number

MOST_FEATURES = 20
_ROW, _FRAME, _LEFT, _WIDTH = 20, 64, 190, 520
_LONGEST = 26


def importance_chart(importance: Importance, task: str, unit: str) -> Chart:
    """The features and groups that a task loses most without; groups have another colour."""
    most = importance.most(task, MOST_FEATURES)
    losses = [each.tasks[task] for each in most]
    metric = METRIC_LABELS.get(importance.metrics[task], importance.metrics[task])
    label = f"loss of {metric}{unit and ','}{unit}"
    x = axis([0.0, *(edge for loss in losses for edge in (loss.low, loss.high))], label)
    plot = row_plot(x, [each.name for each in most], f"feature importance for {task}")
    for place, (each, loss) in enumerate(zip(most, losses, strict=True)):
        css = "c0" if len(each.features) == 1 else "c2"
        tip = f"{each.name}: {number(loss.value)} [{number(loss.low)}, {number(loss.high)}]; {', '.join(each.features)}"
        plot.box((0.0, place + 0.2), (loss.value, place + 0.8), f"area {css}", tip)
        plot.span((loss.low, place + 0.5), (loss.high, place + 0.5), f"bar {css}", tip)
    groups = any(len(each.features) > 1 for each in most)
    legend = (("c0", "feature"), ("c2", "group, shuffled together")) if groups else ()
    return Chart(f"{task}: {metric} {number(importance.baseline_score[task])} loses", plot.svg(), legend)


def calibration_by_slice(name: str, task: str, parts: Sequence[tuple[str, Slice]]) -> Chart:
    """Predicted over actual of each value of a slice, with its interval."""
    known = [
        (value, part.tasks[task]["calibration"]) for value, part in parts if "calibration" in part.tasks.get(task, {})
    ]
    x = axis([1.0, *(edge for _, each in known for edge in (each.low, each.high))], "predicted / actual")
    plot = row_plot(x, [value for value, _ in known], f"calibration of {task} by {name}")
    plot.line(((1.0, 0.0), (1.0, float(len(known)))), "rule")
    for place, (value, each) in enumerate(known):
        tip = f"{value}: {number(each.value)} [{number(each.low)}, {number(each.high)}], {each.n} rows"
        plot.span((each.low, place + 0.5), (each.high, place + 0.5), "bar c0", tip)
        plot.dot((each.value, place + 0.5), "dot c0", tip, 4.0)
    return Chart(f"{task} by {name}", plot.svg())


def row_plot(x: Axis, names: Sequence[str], title: str) -> Plot:
    """A plot with a name a row, long ones cut."""
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in names]
    height = _FRAME + _ROW * max(len(names), 1)
    return Plot(x, Axis(0.0, float(max(len(names), 1)), "", ()), title, _WIDTH, height, rows=short, left=_LEFT)
