"""The data quality of a build as Markdown, for the artifact that a flow run keeps beside its log."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from features.quality.quality_report import FeatureProfile, QualityReport

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 30
"""Of more values, neighbours share a bar of their mean: Prefect's page cuts off what is wider."""


def data_page(report: QualityReport, reuse: str, directory: Path) -> str:
    """Rows, leaks, the mean label by day and each feature's nulls, range, drift and distribution."""
    leaks = [
        f"- **{leak['feature']}** tells {leak['task']}: {leak['measure']} {leak['value']}" for leak in report.leaks
    ]
    page = (directory / "quality.html").absolute()
    unlearned = [f"- **{task}** learns nothing: {why}" for task, why in report.unlearned.items()]
    rates = [_rates(task, days) for task, days in report.label_rates.items() if days]
    lines = [
        "# Data quality",
        "",
        (
            f"{report.rows:,} rows; {report.duplicates:,} repeat another's keys and time; {report.late:,} are late. "
            f"{reuse[:1].upper()}{reuse[1:]}. The whole page: [{page}]({page.as_uri()})"
        ),
        "",
        "## Leaks",
        "",
        *(leaks or ["none found"]),
        "",
        "## Mean label by day",
        "",
        *([*unlearned, ""] if unlearned else []),
        "| task | days | lowest | highest | |",
        "|---|---|---|---|---|",
        *rates,
        "",
        "## Features",
        "",
        "| feature | kind | null | lowest | highest | distinct | PSI | distribution |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(name, profile) for name, profile in report.features.items()),
    ]
    return "\n".join(lines) + "\n"


def _rates(task: str, days: dict[str, float]) -> str:
    values = list(days.values())
    span = f"{next(iter(days))} to {next(reversed(days))}"
    return f"| {task} | {span} | {min(values):.4g} | {max(values):.4g} | {_plot(values)} |"


def _row(name: str, profile: FeatureProfile) -> str:
    low, high = ("" if value is None else f"{value:.6g}" for value in (profile.low, profile.high))
    distinct = "" if profile.distinct is None else f"{profile.distinct:,}"
    drift = "" if profile.psi is None else f"{profile.psi:.3f}"
    numbers = f"{profile.null_rate:.2%} | {low} | {high} | {distinct} | {drift}"
    return f"| {name} | {profile.kind} | {numbers} | {_plot(profile.distribution.shares, floor=0.0)} |"


def _plot(values: Sequence[float], floor: float | None = None) -> str:
    """A line of bars; without a `floor` the lowest value has the lowest bar."""
    size = -(-len(values) // _MOST_BARS)
    values = [fmean(values[begin : begin + size]) for begin in range(0, len(values), size)]
    low = min(values) if floor is None else floor
    span = (max(values) - low) or 1.0
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1))] for value in values)
