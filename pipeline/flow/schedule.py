"""Registers the flows with a Prefect server, so that a worker runs them by the clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import httpx
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker

from contract.errors import ConfigError, UnavailableError
from pipeline.flow.evaluation_flow import evaluate_served
from pipeline.flow.flows import build_model
from pipeline.project.project_config import ProjectConfig, read_config


@dataclass(frozen=True)
class Scheduled:
    """What was registered: ``flow/deployment`` and its id."""

    deployment: str
    id: str


def schedule(
    config: Path,
    cron: str,
    *,
    overrides: list[str],
    timezone: str = "UTC",
    pool: str = "moerank",
    parameters: Mapping[str, object] | None = None,
) -> Scheduled:
    """Register or update the deployment ``moerank/NAME`` of a project, in a work pool of local processes.

    `parameters` are others of `pipeline.flow.flows.build_model`. Runs start in the current directory, with the
    environment of the worker, and go on from the model that is served unless `train.start_from` says otherwise; a run
    that is due while another one is still going is left out.

    Raises:
        ConfigError: the file or the cron text cannot be used, or no server is configured.
        UnavailableError: the server does not answer.
    """
    project = read_config(config, overrides)
    if "start_from" not in project.train.model_fields_set:
        overrides = [*overrides, "train.start_from=current"]
    given = {"config": str(config.absolute()), "overrides": overrides, **(parameters or {})}
    return _register(build_model, project, _clock(cron, timezone), pool, given)


def schedule_evaluation(
    config: Path,
    cron: str,
    *,
    overrides: list[str],
    timezone: str = "UTC",
    pool: str = "moerank",
    parameters: Mapping[str, object] | None = None,
) -> Scheduled:
    """Register or update the deployment ``moerank-evaluation/NAME``: each night, the day before as it was served.

    `parameters` are others of `pipeline.flow.evaluation_flow.evaluate_served`.

    Raises:
        ConfigError: the file or the cron text cannot be used, or no server is configured.
        UnavailableError: the server does not answer.
    """
    project = read_config(config, overrides)
    given = {"config": str(config.absolute()), "overrides": overrides, **(parameters or {})}
    return _register(evaluate_served, project, _clock(cron, timezone), pool, given)


def _register(
    flow: Flow[Any, Any], project: ProjectConfig, clock: Schedule, pool: str, parameters: dict[str, object]
) -> Scheduled:
    server = PREFECT_API_URL.value()
    if not server:
        message = (
            "a schedule needs a Prefect server: start one with `prefect server start`, "
            "then export PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
        raise ConfigError(message)
    deployment = RunnerDeployment.from_flow(
        flow,
        name=project.name,
        schedule=clock,
        parameters=parameters,
        tags=["moerank", project.name],
        work_pool_name=pool,
        job_variables={"working_dir": str(Path.cwd())},
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    try:
        _ensure_pool(pool)
        identity = deployment.apply()
    except (httpx.HTTPError, OSError) as error:
        message = f"no Prefect server answers at {server} ({error}); start one with `prefect server start`"
        raise UnavailableError(message) from error
    return Scheduled(deployment=f"{flow.name}/{project.name}", id=str(identity))


def _clock(cron: str, timezone: str) -> Schedule:
    try:
        ZoneInfo(timezone)
        return Cron(cron, timezone=timezone)
    except (ValueError, ZoneInfoNotFoundError) as error:
        message = f'--cron {cron!r} with timezone {timezone!r} is not a schedule ({error}); an example: "0 3 * * *"'
        raise ConfigError(message) from error


def _ensure_pool(name: str) -> None:
    """Make the work pool unless it is there; one that is there stays as its operator configured it."""
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            return
