"""Prefect itself reads deploy/prefect.yaml, and its server takes the pools and all deployments."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._config import _load_deploy_configs_and_actions
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.schema_tools.hydration import hydrate
from prefect.utilities.templating import find_placeholders
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "prefect.yaml"
TEMPLATE = ROOT / "deploy" / "prefect_kubernetes.json"
POOLS = {"movielens": "moerank", "movielens-docker": "moerank-docker", "movielens-kubernetes": "moerank-kubernetes"}


def model() -> PrefectYamlModel:
    return PrefectYamlModel.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def test_prefect_finds_a_deployment_for_each_kind_of_pool() -> None:
    found, actions = _load_deploy_configs_and_actions(prefect_file=FILE, console=Console())
    assert {one["name"]: one["work_pool"]["name"] for one in found} == POOLS
    assert actions["pull"]
    assert {one.name: one.work_pool.name for one in model().deployments if one.work_pool} == POOLS


def test_each_deployment_runs_at_night_and_alone() -> None:
    for one in model().deployments:
        assert one.schedules is not None
        assert [schedule.model_dump()["cron"] for schedule in one.schedules if not isinstance(schedule, dict)]
        assert one.concurrency_limit is not None
        assert not isinstance(one.concurrency_limit, int)
        assert (one.concurrency_limit.limit, one.concurrency_limit.collision_strategy) == (1, "CANCEL_NEW")


def test_the_parameters_are_those_of_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for one in model().deployments:
        assert one.entrypoint is not None
        flow: Any = load_flow_from_entrypoint(one.entrypoint)
        assert flow.validate_parameters(hydrate(one.parameters))["config"] == Path("pipeline/recipes/movielens.yaml")


def test_every_variable_of_the_kubernetes_job_is_declared() -> None:
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    used = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    declared = set(template["variables"]["properties"])
    assert used == declared
    job = next(one for one in model().deployments if one.name == "movielens-kubernetes")
    assert job.work_pool is not None
    assert set(job.work_pool.job_variables) <= declared
