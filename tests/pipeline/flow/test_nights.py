"""A week of nights on a growing log: one missed, one refused, one killed, one late file, and a backfill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.pipeline.flow.shop import command, environment_of, wait_for
from tests.pipeline.tiny_project import write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
DAYS = [f"2026-04-{day:02d}" for day in range(19, 26)]


def day_of_log(log: pa.Table, first: str, last: str) -> pa.Table:
    days = pc.strftime(log["time"], format="%Y-%m-%d")
    return log.filter(pc.and_(pc.greater_equal(days, first), pc.less_equal(days, last)))


@pytest.mark.long
def test_a_week_of_nights_ends_with_the_right_versions_and_only_those(tmp_path: Path) -> None:
    write_project(tmp_path)
    log = pq.read_table(tmp_path / "raw" / "events.parquet")
    (tmp_path / "raw" / "events.parquet").unlink()
    events = tmp_path / "raw" / "events"
    events.mkdir()
    yaml = (tmp_path / "tiny.yaml").read_text(encoding="utf-8").replace("raw/events.parquet", "raw/events")
    (tmp_path / "tiny.yaml").write_text(yaml + "retention: {versions: 3, runs: 3}\n", encoding="utf-8")
    pq.write_table(day_of_log(log, "2026-01-01", "2026-04-18"), events / "before.parquet")
    environment = environment_of(tmp_path)

    def arrive(day: str, rows: pa.Table) -> None:
        pq.write_table(rows, events / f"{day}.parquet")

    def night(*words: str) -> "subprocess.CompletedProcess[str]":
        return command(tmp_path, environment, "run", "tiny.yaml", "--json", *words)

    late = day_of_log(log, DAYS[4], DAYS[4])
    for number, day in enumerate(DAYS):
        arrive(day, late.slice(0, len(late) // 2) if number == 4 else day_of_log(log, day, day))
        if number == 1:  # missed: nobody ran it; the next night covers its day
            continue
        if number == 2:
            assert night("--set", "quality.rules=[like.auc >= 0.999]").returncode == 3
            continue
        if number == 3:
            killed(tmp_path, environment)
        if number == 5:  # the rest of the day before
            pq.write_table(late.slice(len(late) // 2), events / f"{day}-late.parquet")
        done = night()
        assert done.returncode == 0, done.stderr
    store = tmp_path / "runs" / "tiny" / "store" / "tiny"
    # Published: nights 0, 3, 4, 5 and 6; the three newest stay.
    assert sorted(path.name for path in store.glob("[0-9]*")) == ["3", "4", "5"]
    assert (store / "current").read_text(encoding="utf-8").strip() == "5"
    before = sorted(path.name for path in store.iterdir())
    replayed = command(tmp_path, environment, "backfill", "tiny.yaml", "--from", DAYS[1], "--to", DAYS[2], "--json")
    assert replayed.returncode == 0, replayed.stderr
    nights = json.loads(replayed.stdout)["nights"]
    assert [found["day"] for found in nights] == DAYS[1:3]
    assert all(0 < found["metrics"]["like"]["auc"] < 1 for found in nights)
    assert sorted(path.name for path in store.iterdir()) == before
    assert (store / "current").read_text(encoding="utf-8").strip() == "5"
    shutil.rmtree(tmp_path / "runs")


def killed(folder: Path, environment: dict[str, str]) -> None:
    """A night whose worker is killed while it trains."""
    line = [sys.executable, "-m", "pipeline", "run", "tiny.yaml", "--set", "train.epochs=3"]
    log = folder / "killed.log"
    with (
        log.open("w") as out,
        subprocess.Popen(line, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True) as running,
    ):
        wait_for(lambda: "train: epoch 1" in log.read_text(encoding="utf-8"), 600, log)
        os.killpg(running.pid, signal.SIGKILL)
