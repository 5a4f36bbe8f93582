"""The page of all runs: a table, and each task's metric over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluation.result import TaskScores, headline_metric
from pipeline.report.charts import METRIC_LABELS, Chart
from pipeline.report.over_days import day_chart
from pipeline.report.pages import write_page
from pipeline.report.short_names import meanings

RUNS_PAGE = "index.html"
_MOST_POINTS = 60
_DAY, _MINUTE = len("2026-11-27"), len("2026-11-27 03:00")


@dataclass(frozen=True)
class RunFigures:
    """A row of the table; `report` is the path of its report, relative to the page."""

    project: str
    run: str
    made: str
    version: int | None
    current: bool
    state: str
    tasks: TaskScores
    units: dict[str, str]
    report: str

    def figures(self) -> list[tuple[str, str, str]]:
        """Each task with its metric's name and unit."""
        figures = []
        for task, scores in self.tasks.items():
            metric = headline_metric(scores)
            if metric is not None:
                unit = self.units.get(task, "") if metric == "rmse" else ""
                figures.append((task, metric, unit))
        return figures


def write_runs_page(directory: Path, runs: Sequence[RunFigures]) -> Path:
    """Write ``index.html`` into a workspace; `runs` are in the order of time."""
    return write_page(
        directory / RUNS_PAGE,
        "runs.html",
        runs=runs,
        charts=_charts(runs),
        words=meanings(["auc", "rmse", "calibration", "95 %"]),
    )


def _charts(runs: Sequence[RunFigures]) -> list[Chart]:
    """One for each project and task of several runs."""
    kinds = dict.fromkeys((run.project, *figure) for run in runs for figure in run.figures())
    run_charts = []
    for project, task, metric, unit in kinds:
        known = [run for run in runs if run.project == project and metric in run.tasks.get(task, {})][-_MOST_POINTS:]
        if len(known) > 1:
            suffix = f", {unit}" if unit else ""
            caption = f"{project}, {task}: {METRIC_LABELS.get(metric, metric)}{suffix} of its runs, with 95 % intervals"
            names = [run.made[:_DAY] for run in known]
            # The time of day is said where days have several runs.
            names = names if len(set(names)) == len(names) else [run.made[:_MINUTE] for run in known]
            run_charts.append(Chart(caption, day_chart(caption, names, [run.tasks[task][metric] for run in known])))
    return run_charts
