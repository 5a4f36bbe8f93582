"""The page of a search: its trials in order, each setting against what came of it, and the test over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

from pipeline.report.charts import Chart
from pipeline.report.pages import write_page
from pipeline.report.short_names import meanings
from pipeline.report.svg import Axis, Plot, axis, number

TUNING_PAGE = "tuning.html"


@dataclass(frozen=True)
class TrialFigures:
    """A row of the page: `values` by setting as text and as what they are; `value` None where it failed."""

    number: int
    state: str
    value: float | None
    epoch: int | None
    shown: Mapping[str, str]
    values: Mapping[str, object]
    why: str


@dataclass(frozen=True)
class SeedFigures:
    """A row of the test over seeds, in the page's words."""

    task: str
    metric: str
    recipe: float
    tuned: float
    difference: float
    low: float
    high: float
    p: float
    verdict: str


@dataclass(frozen=True)
class SearchFigures:
    """What the page tells."""

    project: str
    metric: str
    trials: Sequence[TrialFigures]
    best: TrialFigures
    importances: Mapping[str, float]
    log: frozenset[str]
    """Settings drawn on a log scale."""
    seeds: Sequence[SeedFigures]
    seed_count: int
    judged: str
    """Which rows the test over seeds is of."""
    command: str
    """How to train with what was found."""


def write_tuning_page(directory: Path, search: SearchFigures) -> Path:
    """Write ``tuning.html`` into a directory."""
    charts = [_history(search)]
    charts += [_setting(search, path) for path in search.best.values]
    metrics = [seed.metric for seed in search.seeds]
    words = meanings([*metrics, "p"])
    return write_page(directory / TUNING_PAGE, "tuning.html", search=search, charts=charts, words=words)


def _history(search: SearchFigures) -> Chart:
    """Every trial's value in order, and the best so far."""
    known = _known(search.trials)
    x = axis([0.0, float(max(len(search.trials) - 1, 1))], "trial")
    whole = tuple(tick for tick in x.ticks if tick == int(tick) and tick >= 0)
    y = axis([value for _, value in known], search.metric)
    plot = Plot(Axis(x.low, x.high, x.label, whole), y, "trials in order")
    best, steps = float("-inf"), []
    for trial, value in known:
        best = max(best, value) if trial.state == "complete" else best
        steps.append((float(trial.number), best if best > float("-inf") else value))
    plot.line(steps, "line c0", "best so far")
    _dots(plot, [(float(trial.number), trial, value) for trial, value in known])
    return Chart("Trials in order; the line is the best so far", plot.svg(), _LEGEND)


def _setting(search: SearchFigures, path: str) -> Chart:
    """Every trial's value by one setting."""
    known = _known(search.trials)
    places, x = _places([trial for trial, _ in known], path, logarithmic=path in search.log)
    plot = Plot(x, axis([value for _, value in known], search.metric), f"{search.metric} by {path}")
    _dots(plot, [(place, trial, value) for place, (trial, value) in zip(places, known, strict=True)])
    share = search.importances.get(path)
    importance = "" if share is None else f"; {share:.0%} of what sets trials apart"
    return Chart(f"{path}{importance}", plot.svg(), _LEGEND)


_LEGEND = (("c0", "ran to its end"), ("c2", "pruned: its best epoch so far"))
_COMPLETE, _PRUNED = "dot c0", "dot c2"


def _known(trials: Sequence[TrialFigures]) -> list[tuple[TrialFigures, float]]:
    return [(trial, trial.value) for trial in trials if trial.value is not None]


def _dots(plot: Plot, points: Sequence[tuple[float, TrialFigures, float]]) -> None:
    for place, trial, value in points:
        settings = ", ".join(f"{path} {text}" for path, text in trial.shown.items())
        tip = f"trial {trial.number}, {trial.state}: {number(value)}; {settings}"
        plot.dot((place, value), _COMPLETE if trial.state == "complete" else _PRUNED, tip)


def _places(trials: Sequence[TrialFigures], path: str, *, logarithmic: bool) -> tuple[list[float], Axis]:
    """Where trials stand on the axis of a setting: by its number, or its logarithm, or side by side by its text."""
    values = [trial.values[path] for trial in trials]
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == len(values):
        return _number_places(numbers, path, logarithmic=logarithmic)
    names = sorted({trial.shown[path] for trial in trials})
    every = Axis(-0.5, len(names) - 0.5, path, tuple(map(float, range(len(names)))), tuple(names))
    return [float(names.index(trial.shown[path])) for trial in trials], every


def _number_places(numbers: Sequence[float], path: str, *, logarithmic: bool) -> tuple[list[float], Axis]:
    if not logarithmic:
        return list(numbers), axis(numbers, path)
    rank = {value: log10(value) for value in numbers}
    span = axis(rank.values(), path)
    names = tuple(f"{10.0**tick:.2g}" for tick in span.ticks)
    return [rank[value] for value in numbers], Axis(span.low, span.high, path, span.ticks, names)
