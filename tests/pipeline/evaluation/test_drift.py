"""How far new rows are from a model's own."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.quality.shift_measures import chance_of_psi, jensen_shannon, kolmogorov_smirnov, psi
from features.source.parquet_files import write_table
from pipeline.cli.main import main
from pipeline.evaluation.drift import DRIFT_FILE, Drift, Side, measure_drift
from tests.pipeline.conftest import Judged


def _changed(judged: Judged, path: Path) -> Path:
    """The test rows with prices up by one, half the items unknown, and no words at all."""
    table = pq.read_table(judged.test)
    rows = table.num_rows
    half = pa.array(np.arange(rows) % 2 == 0)
    words = pa.ListArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), pa.array(np.zeros(0, np.int32)))
    columns = {
        "price": pc.add(table["price"], pa.scalar(1.0, pa.float32())),
        "item_id": pc.if_else(half, pa.scalar(0, pa.int32()), table["item_id"]),
        "words": words,
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    write_table(table, path)
    return path


def test_rows_of_the_same_kind_do_not_alarm(judged: Judged) -> None:
    found = measure_drift(judged.bundle, Side(judged.train, "train"), Side(judged.test, "test"), threshold=0.1)
    assert found.alarms == []
    names = {each.name for each in found.columns}
    assert {"price", "item_id", "recent", "label of like", "prediction of like", "prediction of rating"} <= names


def test_what_changed_is_found_with_its_rates(judged: Judged, tmp_path: Path) -> None:
    new = _changed(judged, tmp_path / "new.parquet")
    found = measure_drift(judged.bundle, Side(judged.test, "before"), Side(new, "now"))
    by_name = {each.name: each for each in found.columns}
    assert {"price", "item_id", "words"} <= {each.name for each in found.alarms}
    assert by_name["tab"].psi == 0.0
    item, price, words = by_name["item_id"], by_name["price"], by_name["words"]
    assert item.unknown is not None
    assert item.unknown.now == pytest.approx(0.5 + item.unknown.before / 2, abs=0.02)
    assert price.ks == pytest.approx(1.0)
    assert price.mean is not None
    assert price.mean.now - price.mean.before == pytest.approx(1.0, abs=1e-4)
    assert words.missing is not None
    assert words.missing.now == 1.0
    assert by_name["prediction of like"].mean is not None


def test_a_file_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    shares = {"bins": ["a"], "before": [1.0], "now": [1.0]}
    label = {"name": "label of like", "kind": "label", "psi": 0.0, "chance": 1.0, "js": 0.0, **shares}
    sides = {"data": "new", "reference": "old", "rows": 1, "reference_rows": 1}
    old = {**sides, "threshold": 0.2, "found": [label]}
    (tmp_path / DRIFT_FILE).write_text(json.dumps(old), encoding="utf-8")
    drift = Drift.load(tmp_path)
    assert drift is not None
    assert [each.name for each in drift.columns] == ["label of like"]


def test_the_command_writes_a_page_and_ends_with_4_beyond_the_threshold(
    judged: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = _changed(judged, tmp_path / "new.parquet")
    words = ["drift", str(judged.bundle), "--reference", str(judged.test), "--out", str(tmp_path / "out"), "--json"]
    assert main([*words, "--data", str(new)]) == 4
    told = capsys.readouterr()
    assert "PSI is beyond 0.2 for" in told.err
    assert "price" in json.loads(told.out)["alarms"]
    assert "item_id" in (tmp_path / "out" / "drift.html").read_text(encoding="utf-8")
    assert Drift.load(tmp_path / "out") is not None
    assert main([*words, "--data", str(judged.test)]) == 0


def test_new_rows_are_named_once(judged: Judged) -> None:
    words = ["drift", str(judged.bundle), "--reference", str(judged.test)]
    assert main(words) == 2
    assert main([*words, "--data", str(judged.test), "--from", "2026-01-01"]) == 2


def test_measures_are_those_of_the_books() -> None:
    assert psi((0.5, 0.5), (0.25, 0.75)) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5), abs=1e-6)
    assert psi((1.0,), (0.5, 0.5)) is None
    assert jensen_shannon((0.5, 0.5), (0.5, 0.5)) == 0.0
    assert kolmogorov_smirnov(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])) == pytest.approx(1 / 3)
    assert kolmogorov_smirnov(np.array([]), np.array([1.0])) is None


def test_psi_is_by_chance_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    shares = np.full(10, 0.1)
    chances = []
    for _ in range(400):
        before, now = (rng.multinomial(rows, shares) / rows for rows in (2000, 500))
        chances.append(chance_of_psi(psi(before.tolist(), now.tolist()) or 0.0, 10, 2000, 500))
    assert 0.02 <= np.mean(np.array(chances) < 0.05) <= 0.09
