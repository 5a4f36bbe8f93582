"""The second flow: yesterday's raw rows, judged every night by the versions that served them.

A day that breaks a rule of the project's `monitor` ends its run in the state "Alarm", which the notification blocks are
told of, and which is not a failure: the figures are there, and the model goes on being served.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from prefect import flow, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from contract.errors import AlarmError, MoerankError
from contract.files import exclusive
from pipeline.console import progress_of, say
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation
from pipeline.flow import artifacts
from pipeline.flow.flows import ALARM, logged, tell
from pipeline.monitor import judged_days, served_rows
from pipeline.monitor.judged_days import JudgedDay
from pipeline.monitor.served_rows import ServedDay
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.report.days_page import write_days_page

KEPT_DAYS = "features"
"""Below the directory of days: raw rows with features that look back, kept from night to night."""


def yesterday(zone: str, days_back: int = 1) -> date:
    """The day that was so many days ago, on the clocks of a zone."""
    return datetime.now(ZoneInfo(zone)).date() - timedelta(days=days_back)


def day_run_name() -> str:
    """The project and the day when it runs: ``shop-served-2026-11-26``."""
    given = runtime.flow_run.parameters
    try:
        name = read_config(Path(given["config"]), given.get("overrides")).name
    except MoerankError:
        name = Path(given["config"]).stem  # the flow itself says what is wrong with the file
    return f"{name}-served-{given.get('day') or datetime.now(UTC).date()}"


@task(name="served", task_run_name="served")
@logged
def find_served(project: ProjectConfig, day: date) -> ServedDay:
    """Which versions served the day, by the store's pointer or by the log of served requests."""
    served = served_rows.served_day(project, day)
    for line in served.lines():
        say(f"served: {line}")
    return served


@task(name="score", task_run_name="score version {version}")
@logged
def score(project: ProjectConfig, served: ServedDay, version: int) -> Predictions | str:
    """The rows that a version served, with its scores; or why there are none, so that the others are still judged."""
    try:
        with progress_of(f"score version {version}") as progress:
            return served_rows.rows_served_by(project, served, version, progress, project.days_dir / KEPT_DAYS)
    except MoerankError as error:
        say(f"score: version {version} is left out: {error}")
        return str(error)


@task(name="judge", task_run_name="judge")
@logged
def judge(project: ProjectConfig, served: ServedDay, scored: dict[int, Predictions | str]) -> JudgedDay:
    """Metrics with intervals, the rules of `monitor`, the pages and the artifacts."""
    rows = {version: predictions for version, predictions in scored.items() if isinstance(predictions, Predictions)}
    left_out = {version: reason for version, reason in scored.items() if isinstance(reason, str)}
    judged = judged_days.judge_day(project, served, rows, left_out)
    directory = project.days_dir / str(served.day)
    units = {each.name: each.unit for each in project.data.tasks}
    for line in judged_days.day_lines(judged, Evaluation.load(directory), units):
        say(line)
    days = judged_days.evaluated_days(project.days_dir, project.monitor.days)
    write_days_page(project.days_dir, project.name, days, judged_days.alarms_by_day(project.days_dir), units)
    artifacts.keep_day(project, judged, days)
    return judged


@flow(
    name="moerank-evaluation",
    flow_run_name=day_run_name,
    on_failure=[tell],
    on_crashed=[tell],
    on_completion=[tell],
)
def evaluate_served(
    config: Path,
    overrides: list[str] | None = None,
    day: date | None = None,
    days_back: int = 1,
    notify: list[str] | None = None,
    step_hours: float | None = None,
) -> dict[str, object] | State[Any]:
    """Judge a day's raw rows by the versions that served them, as the YAML file `config` says.

    Args:
        config: The project's file.
        overrides: Settings that win over the file's, such as ``monitor.level=0.001``.
        day: Which day; without it the one that was `days_back` days ago, on the clocks of the log's time zone.
        days_back: How many days labels need to arrive; 1 is yesterday.
        notify: Notification blocks to tell of a failure or an alarm, such as ``slack-webhook/ops``.
        step_hours: How long a step may take before it is ended as failed.

    Returns:
        What was found; the state ``Alarm`` where a rule is broken.

    Raises:
        MoerankError: no version served the day, or its rows cannot be judged.
    """
    del notify  # read by `tell`
    project = read_config(config, overrides)
    limit: dict[str, Any] = {"timeout_seconds": None if step_hours is None else step_hours * 3600}
    with exclusive(project.days_dir):
        when = day or yesterday(project.data.events.time_zone, days_back)
        served = find_served.with_options(**limit)(project, when)
        scored = {version: score.with_options(**limit)(project, served, version) for version in served.versions}
        judged = judge.with_options(**limit)(project, served, scored)
    if judged.alarms:
        return Completed(name=ALARM, message=f"{project.name} on {when}: {'; '.join(judged.alarms)}")
    return judged.model_dump(mode="json")


def day_of(state: State[Any]) -> dict[str, object]:
    """What a finished run found.

    Raises:
        AlarmError: a rule is broken.
        MoerankError: the run failed.
    """
    if state.name == ALARM:
        raise AlarmError(state.message or "a rule is broken")
    judged: dict[str, object] = state.result()
    return judged
