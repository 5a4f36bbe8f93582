"""What a build says of its data, and what it refuses."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from contract.errors import DataError
from features.build import build
from features.feature_config import FeaturesConfig
from features.quality.check_data import load_report
from features.quality.leakage import auc
from features.quality.quality_page import quality_page
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw

KUAIRAND = Path(os.environ.get("KUAIRAND_DIR", "../shared/data/kuairand_pure"))
AGES = [{"by": ["user"], "of": ["liked"]}]


def report_of(directory: Path) -> Any:
    report = load_report(directory)
    assert report is not None
    return report


def test_a_report_counts_nulls_ranges_rates_and_repeats(built: Path) -> None:
    report = report_of(built)
    surface = raw_tables()["events"]["surface"]
    assert report.rows == 500
    assert report.duplicates >= 0
    assert report.features["surface"].null_rate == pytest.approx(surface.null_count / 500, abs=0.05)
    assert report.features["surface"].distinct == 2
    assert (report.features["age"].low, report.features["age"].high) == (21.0, 44.0)
    assert len(report.label_rates["like"]) == 6
    page = (built / "quality.html").read_text(encoding="utf-8")
    assert "none found" in page
    assert (report.features["age"].bins or 0) > 4
    assert "<th>bins</th>" in page
    assert "<script" not in page


def test_the_page_marks_a_number_of_few_bins(built: Path) -> None:
    report = report_of(built)
    flag = report.features["age"].model_copy(update={"bins": 1})
    page = quality_page(report.model_copy(update={"features": {"flag": flag}}))
    assert 'class="bad" title=' in page


def test_auc_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    score, label = draw.integers(0, 9, 500).astype(np.float64), draw.integers(0, 2, 500).astype(np.float64)
    assert auc(score, label) == pytest.approx(roc_auc_score(label, score))


@pytest.mark.parametrize(
    ("leak", "words"),
    [({"name": "seconds", "kind": "dense"}, "'watch' with rank"), ({"name": "told"}, "'like' with AUC 1.000")],
)
def test_a_leak_is_refused_by_name_and_can_be_allowed(tmp_path: Path, leak: dict[str, Any], words: str) -> None:
    tables = raw_tables()
    told = pc.if_else(pc.equal(tables["events"]["liked"], 1), "yes", "no")
    write_raw(tmp_path, {**tables, "events": tables["events"].append_column("told", told)})
    blocks = {"features": [{"name": "surface"}, leak], "aggregates": [], "split": {"by": "user_time", "valid": 0.4}}
    with pytest.raises(DataError, match=words):
        build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)
    build(recipe(tmp_path, checks={"leakage": "warn"}, **blocks), tmp_path / "features", quiet)
    assert report_of(tmp_path / "features").leaks[0]["feature"] == leak["name"]
    build(recipe(tmp_path, checks={"allow": [leak["name"]]}, **blocks), tmp_path / "features", quiet)
    assert not report_of(tmp_path / "features").leaks


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason=f"no KuaiRand-Pure in {KUAIRAND}; set KUAIRAND_DIR")
def test_watch_time_planted_among_the_features_of_kuairand_is_caught(tmp_path: Path) -> None:
    days = [str(KUAIRAND / "interactions" / f"date=2022-05-0{day}" / "*.parquet") for day in (2, 3)]
    log = pa.concat_tables(
        [pq.read_table(path).append_column("late", pa.array([path.parent.name] * pq.read_metadata(path).num_rows))
         for pattern in days for path in sorted(Path(pattern).parent.glob("*.parquet"))]
    )  # fmt: skip
    pq.write_table(log, tmp_path / "log.parquet")
    blocks: dict[str, Any] = {
        "events": {"path": str(tmp_path / "log.parquet"), "user": "user_id", "item": "video_id", "time": "event_time"},
        "tasks": [{"name": "long_view", "kind": "binary", "label": "long_view"}],
        "split": {"by": "expression", "valid": "late == 'date=2022-05-03'"},
    }
    honest = [{"name": "tab"}, {"name": "duration_ms", "kind": "dense"}]
    build(FeaturesConfig.model_validate({**blocks, "features": honest}), tmp_path / "features", quiet)
    planted = [*honest, {"name": "play_time_ms", "kind": "dense"}]
    with pytest.raises(DataError, match="'play_time_ms' alone tells task 'long_view'"):
        build(FeaturesConfig.model_validate({**blocks, "features": planted}), tmp_path / "features", quiet)


def test_drift_and_late_rows_are_measured_against_the_last_build(tmp_path: Path) -> None:
    tables = raw_tables()
    write_raw(tmp_path, {**tables, "events": tables["events"].slice(30)})
    blocks = {"features": [{"name": "surface"}, {"name": "age", "kind": "dense"}], "aggregates": AGES}
    build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)
    assert report_of(tmp_path / "features").features["surface"].psi is None
    write_raw(tmp_path, tables)
    build(recipe(tmp_path, **blocks), tmp_path / "features", quiet)
    again = report_of(tmp_path / "features")
    assert again.late == 30
    assert again.features["surface"].psi < 0.02
    other = tables["events"].set_column(3, "surface", pa.array(["elsewhere"] * 500))
    write_raw(tmp_path, {**tables, "events": other})
    with pytest.raises(DataError, match="'surface' drifted"):
        build(recipe(tmp_path, checks={"max_psi": 0.2}, **blocks), tmp_path / "features", quiet)


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"max_null_rate": 0.1}, "'surface' is null in"),
        ({"ranges": {"age": [0, 30]}}, r"'age' lies in \[21, 44\]"),
        ({"ranges": {"agee": [0, 30]}}, "'agee', which is not a feature"),
    ],
)
def test_bounds_of_a_recipe_are_enforced(tmp_path: Path, checks: dict[str, Any], words: str) -> None:
    write_raw(tmp_path, raw_tables())
    features = [{"name": "surface"}, {"name": "age", "kind": "dense"}]
    with pytest.raises(DataError, match=words):
        build(recipe(tmp_path, features=features, aggregates=[], checks=checks), tmp_path / "features", quiet)
