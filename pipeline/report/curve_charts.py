"""The report's curves of one task: ROC, precision and recall, reliability, scores by label."""

from collections.abc import Sequence

from pipeline.evaluation.curves import ScoreHistogram, TaskCurves
from pipeline.report.charts import Chart
from pipeline.report.svg import Axis, Plot, axis, number

UNIT = Axis(0.0, 1.0, "", (0.0, 0.25, 0.5, 0.75, 1.0))
_TICKS = 5


def roc(task: str, curves: TaskCurves, area: float) -> Chart:
    """True against false positive rate."""
    x = Axis(0.0, 1.0, "false positive rate", UNIT.ticks)
    plot = Plot(x, Axis(0.0, 1.0, "true positive rate", UNIT.ticks), f"ROC of {task}")
    plot.line(((0.0, 0.0), (1.0, 1.0)), "rule")
    plot.line(curves.roc, "line c0", f"AUC {number(area)}")
    return Chart(f"ROC, AUC {number(area)}", plot.svg())


def precision_recall(task: str, curves: TaskCurves, area: float, rate: float) -> Chart:
    """Precision against recall; the dashed line is the rate of positives, which chance has."""
    x = Axis(0.0, 1.0, "recall", UNIT.ticks)
    plot = Plot(x, Axis(0.0, 1.0, "precision", UNIT.ticks), f"precision and recall of {task}")
    plot.line(((0.0, rate), (1.0, rate)), "rule")
    plot.line(curves.pr, "line c0", f"PR AUC {number(area)}")
    return Chart(f"Precision and recall, PR AUC {number(area)}; dashed: the rate {number(rate)}", plot.svg())


def histogram(task: str, scores: ScoreHistogram, unit: str) -> Chart:
    """The shares of rows by score, of each kind of row on its own; the bins stand side by side whatever their width."""
    bins = len(scores.edges) - 1
    top = max((share for shares in scores.shares.values() for share in shares), default=1.0)
    x = bin_axis(scores.edges, f"score{f' ({unit})' if unit else ''}")
    plot = Plot(x, axis([0.0, top], "share of rows", pad=0.0), f"scores of {task}")
    for place, (name, shares) in enumerate(scores.shares.items()):
        for number_of_bin, share in enumerate(shares[:bins]):
            low, high = scores.edges[number_of_bin : number_of_bin + 2]
            tip = f"{name}, {number(low)} to {number(high)}: {share:.1%}"
            plot.box((number_of_bin, 0.0), (number_of_bin + 1.0, share), f"area c{_colour(place)}", tip)
    legend = tuple((f"c{_colour(place)}", name) for place, name in enumerate(scores.shares))
    return Chart("Scores by what the row is; each adds up to 1", plot.svg(), legend)


def bin_axis(edges: Sequence[float], label: str) -> Axis:
    """Bins side by side, some of whose edges are named."""
    bins = len(edges) - 1
    every = max(1, bins // _TICKS)
    named = list(range(0, bins + 1, every))
    return Axis(0.0, float(bins), label, tuple(map(float, named)), tuple(f"{edges[place]:.3g}" for place in named))


def _colour(place: int) -> int:
    """Negative rows grey, positive ones blue, as the model elsewhere."""
    return 2 if place == 0 else 0


def reliability(task: str, curves: TaskCurves, calibration: float | None) -> Chart:
    """Observed share against predicted probability, in bins of about equal size, with 95 % intervals."""
    edges = [edge for part in curves.bins for edge in (part.predicted, part.high)]
    x, y = axis([0.0, *edges], "mean prediction", pad=0.02), axis([0.0, *edges], "share of positives", pad=0.02)
    plot = Plot(x, y, f"reliability of {task}")
    plot.line(((max(x.low, y.low),) * 2, (min(x.high, y.high),) * 2), "rule")
    for part in curves.bins:
        tip = f"predicted {number(part.predicted)}, observed {number(part.actual)}, {part.rows} rows"
        plot.span((part.predicted, part.low), (part.predicted, part.high), "bar c0", tip)
        plot.dot((part.predicted, part.actual), "dot c0", tip)
    ratio = "" if calibration is None else f", predicted / actual {number(calibration)}"
    return Chart(f"Reliability{ratio}", plot.svg())


def predicted_against_actual(task: str, curves: TaskCurves, unit: str) -> Chart:
    """Mean label against mean prediction, in bins of about equal size, with the label's middle 80 %."""
    suffix = f" ({unit})" if unit else ""
    x = axis([part.predicted for part in curves.bins], f"mean prediction{suffix}")
    y = axis([e for part in curves.bins for e in (part.low, part.high, part.predicted)], f"label{suffix}")
    plot = Plot(x, y, f"predicted and actual {task}")
    plot.line(((max(x.low, y.low),) * 2, (min(x.high, y.high),) * 2), "rule")
    for part in curves.bins:
        tip = f"predicted {number(part.predicted)}, mean label {number(part.actual)}, {part.rows} rows"
        plot.span((part.predicted, part.low), (part.predicted, part.high), "bar c0", tip)
        plot.dot((part.predicted, part.actual), "dot c0", tip)
    return Chart("Predicted and actual: mean and middle 80 % of the label", plot.svg())
