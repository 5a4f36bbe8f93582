"""The page of a comparison: every model against the first one, by task, metric and slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.comparing.comparison import Comparison, PairedComparison
from pipeline.evaluation.comparing.paired_test import Difference
from pipeline.evaluation.comparing.slice_differences import SliceDifference
from pipeline.report.bar_charts import row_plot
from pipeline.report.charts import METRIC_LABELS, Chart
from pipeline.report.pages import write_page
from pipeline.report.short_names import meanings
from pipeline.report.svg import axis, number

COMPARISON_PAGE = "comparison.html"
_MOST_VALUES = 12


@dataclass(frozen=True)
class Cell:
    """A model's metric beside that of A."""

    found: Difference
    verdict: str
    css: str


@dataclass(frozen=True)
class MetricRow:
    """A metric of all models; `cells` are of the models after A, None where it is not defined."""

    name: str
    headline: bool
    a: float
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class TaskTable:
    """A task's metrics, the headline first, why others are not defined, and the headline's differences as a chart."""

    task: str
    rows: tuple[MetricRow, ...]
    undefined: dict[str, str]
    chart: Chart | None


@dataclass(frozen=True)
class _Span:
    """A difference with its interval, on a row of a chart."""

    name: str
    value: float
    low: float
    high: float
    rows: int


def write_comparison_page(comparison: Comparison, directory: Path) -> Path:
    """Write ``comparison.html`` into a directory and return its path."""
    tasks = list(dict.fromkeys(task for pair in comparison.pairs for task in pair.tasks))
    tables = [_table(comparison, task) for task in tasks]
    names = {row.name.replace(" ", "_") for table in tables for row in table.rows}
    directory.mkdir(parents=True, exist_ok=True)
    return write_page(
        directory / COMPARISON_PAGE,
        "comparison.html",
        models=dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", comparison.models, strict=False)),
        rows=comparison.rows,
        notes=comparison.notes,
        pairs=comparison.named_pairs(),
        tables=tables,
        slice_charts=[chart for letter, pair in comparison.named_pairs() for chart in _slice_charts(pair, letter)],
        slice_tests=sum(len(pair.slices) for pair in comparison.pairs),
        method=comparison.pairs[0].method,
        words=meanings([*names, "95 %", "p"]),
    )


def _table(comparison: Comparison, task: str) -> TaskTable:
    pairs = [pair for pair in comparison.pairs if task in pair.tasks]
    known = dict.fromkeys(metric for pair in pairs for metric in pair.tasks[task])
    rows = []
    for metric in known:
        cells = tuple(_cell(pair.tasks.get(task, {}).get(metric)) for pair in comparison.pairs)
        first = next(cell.found for cell in cells if cell is not None)
        rows.append(MetricRow(_label(pairs[0], task, metric), first.headline, first.a, cells))
    rows.sort(key=lambda row: not row.headline)
    return TaskTable(task, tuple(rows), dict(pairs[0].undefined.get(task, {})), _headline_chart(comparison, task))


def _label(pair: PairedComparison, task: str, metric: str) -> str:
    unit = pair.units.get(task, "") if metric in {"rmse", "mae"} else ""
    return f"{metric.replace('_', ' ')}{unit and ', '}{unit}"


def _cell(difference: Difference | None) -> Cell | None:
    if difference is None:
        return None
    verdict = {"a": "worse", "b": "better", "neither": "no clear difference"}[difference.better]
    return Cell(difference, verdict, {"a": "bad", "b": "good", "neither": ""}[difference.better])


def _headline_chart(comparison: Comparison, task: str) -> Chart | None:
    spans, label = [], ""
    for letter, pair in comparison.named_pairs():
        for metric, each in pair.tasks.get(task, {}).items():
            if each.headline:
                spans.append(_Span(f"{letter} - A", each.difference, each.low, each.high, each.n))
                label = _difference_label(pair, task, metric)
    return _chart(f"{task}: {label}, with 95 % intervals", label, spans) if spans else None


def _difference_label(pair: PairedComparison, task: str, metric: str) -> str:
    unit = pair.units.get(task, "") if metric == "rmse" else ""
    return f"difference in {METRIC_LABELS.get(metric, metric)}{unit and ', '}{unit}"


def _slice_charts(pair: PairedComparison, letter: str) -> list[Chart]:
    """The headline's differences by slice, a chart for each slice and task."""
    groups: dict[tuple[str, str, str], list[SliceDifference]] = {}
    for each in pair.slices:
        groups.setdefault((each.slice, each.task, each.metric), []).append(each)
    charts = []
    for (name, task, metric), parts in groups.items():
        spans = [_Span(part.value, part.difference, part.low, part.high, part.rows) for part in parts[:_MOST_VALUES]]
        label = _difference_label(pair, task, metric)
        charts.append(_chart(f"{task} by {name.replace('_', ' ')}: {letter} minus A", label, spans))
    return charts


def _chart(caption: str, label: str, spans: Sequence[_Span]) -> Chart:
    x = axis([0.0, *(edge for span in spans for edge in (span.low, span.high))], label)
    plot = row_plot(x, [span.name for span in spans], caption)
    plot.line(((0.0, 0.0), (0.0, float(len(spans)))), "rule")
    for place, span in enumerate(spans):
        tip = f"{span.name}: {span.value:+.4f} [{number(span.low)}, {number(span.high)}], {span.rows} rows"
        plot.span((span.low, place + 0.5), (span.high, place + 0.5), "bar c0", tip)
        plot.dot((span.value, place + 0.5), "dot c0", tip, 4.0)
    return Chart(caption, plot.svg())
