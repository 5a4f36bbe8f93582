"""What a flow run keeps beside its log, as Markdown: quality of data and model, the gate's findings, the version."""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from contract.errors import MoerankError
from features.quality.check_data import load_report
from pipeline.evaluation.alarm_rules import headlines_of
from pipeline.evaluation.comparing.paired_test import Difference
from pipeline.evaluation.comparing.slice_differences import SliceDifference
from pipeline.evaluation.quality_gate import examine, gate_findings
from pipeline.evaluation.result import Evaluation, headline_metric
from pipeline.evaluation.task_metrics import Estimate
from pipeline.flow.steps import Published, Run
from pipeline.monitor.judged_days import JudgedDay
from pipeline.project.project_config import ProjectConfig
from pipeline.report.data_page import data_page
from pipeline.report.version_test import AgainstCurrent
from pipeline.tuning.results import Tuned


def keep_data_quality(config: ProjectConfig, reuse: str) -> None:
    """Nulls, ranges, drift and leaks of a build, where its report was asked for."""
    report = load_report(config.features_dir)
    if report is not None:
        _keep("data-quality", config.name, data_page(report, reuse, config.features_dir.absolute()), "Data quality")


def keep_metrics(run: Run) -> None:
    """Each task's headline metric with its interval, beside the baselines."""
    evaluation = Evaluation.load(run.evaluation_dir)
    rivals = list(evaluation.baselines)
    lines = [
        f"# Quality of {run.config.name}",
        "",
        f"{evaluation.rows:,} rows; the whole report: {_link(run.evaluation_dir / 'report.html')}",
        "",
        _row("task", "metric", "value", "95 % interval", *rivals),
        _row(*["---"] * (4 + len(rivals))),
    ]
    for task, scores in evaluation.tasks.items():
        metric = headline_metric(scores)
        if metric is None:
            lines.append(_row(task, evaluation.why_no_headline(task), *[""] * (2 + len(rivals))))
            continue
        estimate = scores[metric]
        beside = [f"{evaluation.baselines[name][task][metric].value:.4f}" for name in rivals]
        interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
        lines.append(_row(task, metric, f"{estimate.value:.4f}", interval, *beside))
    _keep("metrics", run.config.name, "\n".join(lines), "Metrics on held-out rows")


def keep_findings(run: Run) -> None:
    """What the quality gate asked, and what it found; nothing where it has no rule that can be read."""
    try:
        findings = gate_findings(run.evaluation_dir) or examine(Evaluation.load(run.evaluation_dir), run.config.quality)
    except MoerankError as error:
        _keep("quality-gate", run.config.name, f"The gate cannot judge: {error}", "Quality gate")
        return
    lines = ["# Quality gate", "", _row("rule", "", "found"), _row("---", "---", "---")]
    lines += [_row(f.rule, "passed" if f.passed else "**failed**", f.text) for f in findings]
    compared = AgainstCurrent.load(run.evaluation_dir)
    if compared is not None:
        lines += _compared(compared)
    _keep("quality-gate", run.config.name, "\n".join(lines), "Quality gate")


def _compared(compared: AgainstCurrent) -> list[str]:
    """What was compared with the current version, on which rows, whole and by slice."""
    lines = [
        "",
        f"## Against version {compared.version}",
        "",
        f"{compared.rows:,} rows of {compared.first} to {compared.last} UTC; intervals of slices hold for all together",
        "",
        _row("rows of", "task", "rows", "current", "new", "difference", "interval"),
        _row(*["---"] * 7),
    ]
    differences: list[tuple[str, str, int, Difference | SliceDifference]] = [
        ("all", task, each.n, each) for task, each in compared.tasks.items()
    ]
    differences += [(f"{part.slice} {part.value}", part.task, part.rows, part) for part in compared.slices]
    for where, task, rows, each in differences:
        interval = f"{each.low:+.4f} to {each.high:+.4f}"
        lines.append(
            _row(where, task, f"{rows:,}", f"{each.a:.4f}", f"{each.b:.4f}", f"{each.difference:+.4f}", interval)
        )
    return lines


def keep_version(run: Run, published: Published) -> None:
    """Which version the run published, and where everything of it lies."""
    lines = [
        f"# {run.config.name} version {published.bundle.name}",
        "",
        _row("what", "where"),
        _row("---", "---"),
        _row("bundle", _link(published.bundle)),
        _row("report", _link(published.report)),
        _row("TensorBoard", f"`tensorboard --logdir {published.tensorboard.absolute()}`"),
        _row("serve it", f"`moerank serve {published.store.absolute()}`"),
    ]
    _keep("version", run.config.name, "\n".join(lines), "Published version")


def keep_day(project: ProjectConfig, judged: JudgedDay, days: Sequence[tuple[date, Evaluation]]) -> None:
    """A day as it was served: its rules, and metric and calibration of it and of the days before."""
    lines = ["# Rules", "", _row("rule", "", "found"), _row("---", "---", "---")]
    lines += [_row(f.rule, "passed" if f.passed else "**ALARM**", f.text) for f in judged.findings]
    served = ", ".join(f"version {version}: {rows:,} rows" for version, rows in judged.versions.items())
    left = [f"version {version} is left out: {why}" for version, why in judged.left_out.items()]
    head = [f"{judged.model} on {judged.day}, as it was served", "", "; ".join([served, *left]), ""]
    _keep("alarm", project.name, "\n".join([*head, *lines]), "Rules of the day")
    lines = ["# Days as they were served", "", f"The page: {_link(project.days_dir / 'index.html')}", ""]
    lines += [_row("day", "task", "rows", "metric", "value", "predicted / actual"), _row(*["---"] * 6)]
    for day, evaluation in reversed(days):
        for task, metric, estimate in headlines_of(evaluation.tasks):
            ratio = evaluation.tasks[task].get("calibration")
            calibration = "" if ratio is None else _interval(ratio)
            lines.append(_row(str(day), task, f"{estimate.n:,}", metric, _interval(estimate), calibration))
    _keep("days", project.name, "\n".join(lines), "Metric and calibration over days")


def keep_search(project: ProjectConfig, tuned: Tuned) -> None:
    """What a search found, and the test of it over seeds."""
    lines = ["# Search over settings", "", f"The page: `{tuned.page}`", "", *tuned.lines()]
    _keep("search", project.name, "\n".join(lines), "Search over settings")


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def artifact_key(subject: str, project: str) -> str:
    """A key in the letters that Prefect allows: small ones, digits and dashes.

    Example:
        >>> artifact_key("metrics", "My_Shop")
        'metrics-my-shop'
    """
    return f"{subject}-{re.sub('[^a-z0-9]+', '-', project.lower()).strip('-')}"


def _keep(subject: str, project: str, page: str, title: str) -> None:
    create_markdown_artifact(page, key=artifact_key(subject, project), description=f"{title}: {project}")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _link(path: Path) -> str:
    """The whole path, as nobody who reads the page knows where the worker runs; a browser on its machine opens it."""
    # Prefect's pages show backticks in a link as they are.
    return f"[{path.absolute()}]({path.absolute().as_uri()})"
