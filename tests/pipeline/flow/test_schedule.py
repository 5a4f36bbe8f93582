"""What a schedule refuses; that a scheduled run fires is tested with the flow."""

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from contract.errors import ConfigError, UnavailableError
from pipeline.flow.schedule import schedule
from tests.pipeline.tiny_project import write_project


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def test_a_schedule_needs_a_server(config: Path) -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(ConfigError, match="prefect server start"),
    ):
        schedule(config, "0 3 * * *", overrides=[])


@pytest.mark.parametrize(("cron", "timezone"), [("at three", "UTC"), ("0 3 * *", "UTC"), ("0 3 * * *", "Mars/Olympus")])
def test_a_clock_that_is_none_is_refused(config: Path, cron: str, timezone: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ConfigError, match=f"--cron '{cron}' with timezone '{timezone}'".replace("*", r"\*")),
    ):
        schedule(config, cron, overrides=[], timezone=timezone)


def test_a_server_that_does_not_answer_is_named(config: Path) -> None:
    nowhere = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(nowhere),
        pytest.raises(UnavailableError, match=r"no Prefect server answers at http://127\.0\.0\.1:9/api"),
    ):
        schedule(config, "0 3 * * *", overrides=[])
