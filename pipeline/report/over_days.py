"""Charts over days: a metric with its interval, one line per task or one line for all."""

from collections.abc import Sequence

from pipeline.evaluation.task_metrics import Estimate
from pipeline.report.svg import Axis, Plot, axis, number

_MOST_TICKS, _MOST_LONG_TICKS = 6, 3
_DAY_LENGTH = len("2026-11-27")


def day_axis(days: Sequence[str]) -> Axis:
    """Days, or days with times, side by side, of which as many are named as there is room for."""
    most = _MOST_TICKS if max(map(len, days), default=0) <= _DAY_LENGTH else _MOST_LONG_TICKS
    every = max(1, -(-len(days) // most))
    named = list(range(0, len(days), every))
    return Axis(
        -0.5, max(len(days) - 0.5, 0.5), "", tuple(map(float, named)), tuple(days[place][5:] for place in named)
    )


def day_chart(
    title: str, days: Sequence[str], estimates: Sequence[Estimate | None], right: float | None = None
) -> str:  # fmt: skip
    """A plot of estimates by day, those that are None left out; `right` is a value to hold them against."""
    known = [(place, each) for place, each in enumerate(estimates) if each is not None]
    edges = [edge for _, each in known for edge in (each.low, each.high)]
    plot = Plot(day_axis(days), axis([*edges, *([] if right is None else [right])], ""), title)
    if right is not None:
        plot.line(((-0.5, right), (len(days) - 0.5, right)), "rule")
    plot.line([(float(place), each.value) for place, each in known], "line c0")
    for place, each in known:
        tip = f"{days[place]}: {number(each.value)} [{number(each.low)}, {number(each.high)}], {each.n} rows"
        plot.span((place, each.low), (place, each.high), "bar c0", tip)
        plot.dot((place, each.value), "dot c0", tip)
    return plot.svg()
