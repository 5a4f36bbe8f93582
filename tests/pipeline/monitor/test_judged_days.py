"""Days judged as they were served."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.errors import DataError
from pipeline.cli.main import main
from pipeline.evaluation.alarm_rules import MonitorConfig
from pipeline.evaluation.prediction_file import load_predictions
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.result import Evaluation
from pipeline.monitor.judged_days import JudgedDay, alarms_by_day, day_lines, evaluated_days, judge_day
from pipeline.monitor.served_rows import rows_served_by, served_day
from pipeline.report.days_page import write_days_page
from tests.pipeline.two_versions import LAST, NOON, TwoVersions, make_two_versions

NOON_MS = int(NOON.timestamp() * 1000)


def _quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> TwoVersions:
    return make_two_versions(tmp_path_factory.mktemp("two-versions"))


def _judged(shop: TwoVersions, day: date, **monitor: object) -> JudgedDay:
    config = shop.config.model_copy(update={"monitor": MonitorConfig.model_validate(monitor)})
    served = served_day(config, day)
    rows = {
        version: rows_served_by(config, served, version, _quiet, shop.folder / "kept") for version in served.versions
    }
    return judge_day(config, served, rows, {})


def _scores(shop: TwoVersions, version: int, out: Path) -> Predictions:
    words = ["predict", str(shop.version(version)), "--from", str(LAST), "--to", str(LAST), "--out", str(out)]
    words += ["--keep-days", str(shop.folder / "kept")]
    assert main(words) == 0
    return load_predictions(out)


def test_each_row_is_scored_by_the_version_that_was_current_at_its_time(shop: TwoVersions, tmp_path: Path) -> None:
    served = served_day(shop.config, LAST)
    assert served.versions == [1, 2]
    for version in (1, 2):
        found = rows_served_by(shop.config, served, version, _quiet, shop.folder / "kept")
        whole = _scores(shop, version, tmp_path / f"{version}.parquet")
        mine = (whole.time >= NOON_MS) == (version == 2)
        assert found.rows == int(mine.sum()) > 50
        assert sorted(found.scores[:, 0].tolist()) == sorted(whole.scores[mine, 0].tolist())


def test_the_log_is_read_where_it_lies_today(shop: TwoVersions, tmp_path: Path) -> None:
    log = pq.read_table(shop.config.data.events.path)
    pq.write_table(log.take(list(range(0, log.num_rows, 2))), tmp_path / "moved.parquet")
    events = shop.config.data.events.model_copy(update={"path": str(tmp_path / "moved.parquet")})
    moved = shop.config.model_copy(update={"data": shop.config.data.model_copy(update={"events": events})})
    served = served_day(moved, LAST)
    version = served.versions[0]
    before, after = (rows_served_by(each, served, version, _quiet).rows for each in (shop.config, moved))
    assert 0 < after < before


def test_a_day_is_measured_on_all_its_rows_with_versions_as_a_slice(shop: TwoVersions) -> None:
    judged = _judged(shop, LAST)
    evaluation = Evaluation.load(shop.config.days_dir / str(LAST))
    events = pq.read_table(shop.folder / "events.parquet")
    assert sum(judged.versions.values()) == evaluation.rows == int(pc.sum(pc.equal(events["day"], 5)).as_py())
    assert {name: part.rows for name, part in evaluation.slices["version"].items()} == {
        str(version): rows for version, rows in judged.versions.items()
    }
    assert "version 2: 2024-03-06 12:00" in " ".join(evaluation.findings)
    assert JudgedDay.load(shop.config.days_dir / str(LAST)) == judged
    lines = day_lines(judged, evaluation, {"watch": "log1p seconds"})
    assert lines[0].startswith("shop on 2024-03-06: version 1 ")
    assert any("watch: rmse" in line and "log1p seconds, predicted / actual" in line for line in lines)


def test_days_make_a_page_and_a_broken_bound_is_an_alarm_on_it(shop: TwoVersions) -> None:
    for number in (4, 5):
        assert _judged(shop, date(2024, 3, number)).alarms == []
    judged = _judged(shop, LAST, rules=["like.auc >= 0.99"])
    assert len(judged.alarms) == 1
    assert "but >= 0.99 is asked for" in judged.alarms[0]
    days = evaluated_days(shop.config.days_dir)
    assert [str(day) for day, _ in days] == ["2024-03-04", "2024-03-05", "2024-03-06"]
    page = write_days_page(shop.config.days_dir, "shop", days, alarms_by_day(shop.config.days_dir), {"watch": "s"})
    text = page.read_text(encoding="utf-8")
    assert 'href="2024-03-05/report.html"' in text
    assert "but &gt;= 0.99 is asked for" in text
    assert "watch rmse, s" in text


def test_a_served_log_says_which_version_served_each_row(shop: TwoVersions, tmp_path: Path) -> None:
    """Version 2 for every second user, whatever the pointer said; a tenth of the rows nobody served."""
    events = pq.read_table(shop.folder / "events.parquet")
    events = events.filter(pc.equal(events["day"], 5))
    number = np.array([int(user[1:]) for user in events["user"].to_pylist()])
    log = events.select(["user", "item", "at"]).append_column("version", pa.array(1 + number % 2))
    kept = np.arange(len(log)) % 10 > 0
    pq.write_table(log.filter(pa.array(kept)), tmp_path / "served.parquet")
    config = shop.config.model_copy(update={"monitor": MonitorConfig(served=str(tmp_path / "served.parquet"))})
    served = served_day(config, LAST)
    assert served.versions == [1, 2]
    rows = {version: rows_served_by(config, served, version, _quiet, shop.folder / "kept").rows for version in (1, 2)}
    pairs = {
        (user, item)
        for user, item, keep in zip(*(log[n].to_pylist() for n in ("user", "item")), kept, strict=True)
        if keep
    }
    assert len(pairs) <= sum(rows.values()) <= len(log)
    assert rows[2] == pytest.approx(int((number % 2 == 1).sum()) * 0.9, rel=0.1)


def test_what_cannot_be_judged_is_said(shop: TwoVersions) -> None:
    shop.served((2, NOON))
    try:
        with pytest.raises(DataError, match="no version of shop was served on 2024-03-04"):
            served_day(shop.config, date(2024, 3, 4))
    finally:
        shop.served((1, datetime(2024, 1, 1, tzinfo=UTC)), (2, NOON))
    served = replace(served_day(shop.config, LAST))
    with pytest.raises(DataError, match="nothing of 2024-03-06 could be scored: it is gone"):
        judge_day(shop.config, served, {}, {1: "it is gone"})
