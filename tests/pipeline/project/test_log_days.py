"""A night is replayed only where the log has something new for it."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from pipeline.cli.main import main
from pipeline.project.data_project import read_data
from pipeline.project.log_days import log_days, nights_to_replay
from tests.pipeline.tiny_project import write_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log from 2026-04-01 to 2026-04-04 by New York's clocks, with nothing on the third."""
    monkeypatch.chdir(tmp_path)
    path = write_project(tmp_path)
    events = tmp_path / "raw" / "events.parquet"
    log = pq.read_table(events)
    days = pc.strftime(pc.assume_timezone(pc.local_timestamp(log["time"].cast(NEW_YORK)), "UTC"), format="%Y-%m-%d")
    pq.write_table(log.filter(pc.is_in(days, pa.array(["2026-04-01", "2026-04-02", "2026-04-04"]))), events)
    path.write_text(path.read_text(encoding="utf-8").replace("time: time", f"time: time, time_zone: {NEW_YORK.tz}"))
    return path


NEW_YORK = pa.timestamp("ms", "America/New_York")


def test_days_are_those_of_the_logs_zone(project: Path) -> None:
    assert log_days(read_data(project).data) == [date(2026, 4, day) for day in (1, 2, 4)]


def test_a_day_without_events_is_no_night_to_train(project: Path) -> None:
    nights = nights_to_replay(read_data(project).data, date(2026, 4, 2), date(2026, 4, 4))
    assert [(night.day.day, night.has_events) for night in nights] == [(2, True), (3, False), (4, True)]


def test_a_day_after_the_logs_end_is_refused_with_its_last_day(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["backfill", str(project), "--from", "2026-04-01", "--to", "2026-04-05"]) == 2
    assert "--to 2026-04-05 is after the log's last day, 2026-04-04 in America/New_York" in capsys.readouterr().err


def test_days_in_the_wrong_order_are_refused(project: Path) -> None:
    with pytest.raises(ConfigError, match="--from 2026-04-02 is after --to 2026-04-01"):
        nights_to_replay(read_data(project).data, date(2026, 4, 2), date(2026, 4, 1))
