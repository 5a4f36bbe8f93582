"""The page over days: how good a published model was on each day, as it was served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.evaluation.result import Evaluation, TaskScores, headline_metric
from pipeline.report.charts import METRIC_LABELS, Chart
from pipeline.report.over_days import day_chart
from pipeline.report.pages import write_page
from pipeline.report.short_names import meanings

DAYS_PAGE = "index.html"


@dataclass(frozen=True)
class DayRow:
    """A row of the page's table."""

    day: str
    rows: int
    versions: str
    tasks: TaskScores
    alarm: bool


def write_days_page(
    directory: Path,
    model: str,
    days: Sequence[tuple[date, Evaluation]],
    alarms: Mapping[date, Sequence[str]],
    units: Mapping[str, str],
) -> Path:
    """Write ``index.html`` into the directory of the days, whose own reports it leads to; `days` rise."""
    rows = [
        DayRow(str(day), scored.rows, ", ".join(scored.slices.get("version", {})) or "one", scored.tasks, day in alarms)
        for day, scored in days
    ]
    metrics: dict[str, str] = {}
    for row in rows:
        metrics |= {task: metric for task, scores in row.tasks.items() if (metric := headline_metric(scores))}
    suffix = {
        task: f", {units[task]}" if metric == "rmse" and units.get(task) else "" for task, metric in metrics.items()
    }
    charts = []
    for task, metric in metrics.items():
        charts.append(_chart(f"{task}: {METRIC_LABELS.get(metric, metric)}{suffix[task]}", rows, task, metric))
        charts.append(_chart(f"{task}: predicted / actual", rows, task, "calibration", right=1.0))
    shown = {str(day): texts for day, texts in alarms.items() if str(day) in {row.day for row in rows}}
    return write_page(
        directory / DAYS_PAGE,
        "days.html",
        model=model,
        days=rows,
        metrics=metrics,
        units=suffix,
        charts=charts,
        alarms=shown,
        words=meanings([*metrics.values(), "calibration", "95 %"]),
    )


def _chart(caption: str, rows: Sequence[DayRow], task: str, metric: str, right: float | None = None) -> Chart:
    estimates = [row.tasks.get(task, {}).get(metric) for row in rows]
    return Chart(f"{caption}, with 95 % intervals", day_chart(caption, [row.day for row in rows], estimates, right))
