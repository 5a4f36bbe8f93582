"""Runs and versions with their figures."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.monitor.run_list import list_runs
from pipeline.step_cache import StepRecord
from tests.pipeline.conftest import Judged

STEP = StepRecord(step="train", stamp="x", made="2026-11-24T03:00:00+00:00", seconds=1.0, outputs=(), result={})


def _run(workspace: Path, name: str, day: int, judged: Judged, bundle: str = "") -> Path:
    """A run as its steps leave it; one with a bundle has published."""
    folder = workspace / "shop" / "training" / name
    shutil.copytree(judged.out, folder / "evaluation")
    record = STEP.model_copy(update={"made": f"2026-11-{day}T03:00:00+00:00"})
    (folder / "step.json").write_text(record.model_dump_json(), encoding="utf-8")
    if bundle:
        (folder / "publication").mkdir()
        published = STEP.model_copy(update={"step": "publish", "result": {"bundle": bundle}})
        (folder / "publication" / "step.json").write_text(published.model_dump_json(), encoding="utf-8")
        (workspace / bundle).mkdir(parents=True)
    return folder


@pytest.fixture
def workspace(judged: Judged, tmp_path: Path) -> Path:
    _run(tmp_path, "b", 24, judged, "shop/store/shop/1")
    refused = _run(tmp_path, "a", 25, judged)
    gate = [{"rule": "like.auc >= 0.9", "passed": False, "text": "no"}]
    (refused / "evaluation" / "gate.json").write_text(json.dumps(gate), encoding="utf-8")
    (tmp_path / "shop" / "store" / "shop" / "current").write_text("1\n", encoding="utf-8")
    (tmp_path / "shop" / "training" / "half").mkdir()
    return tmp_path


def test_runs_are_listed_in_time_with_version_state_and_figures(workspace: Path) -> None:
    first, second = list_runs(workspace)
    assert (first.run, first.version, first.current, first.state) == ("b", 1, True, "published")
    assert (second.run, second.version, second.state) == ("a", None, "refused")
    assert set(first.tasks["like"]) == {"auc", "calibration"}
    assert "rating rmse 0." in first.line()
    assert " stars" in first.line()


def test_the_command_prints_a_table_or_json_and_writes_a_page(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(workspace)]) == 0
    assert "1 *" in capsys.readouterr().out
    assert main(["runs", str(workspace), "--json"]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["b", "a"]
    page = (workspace / "index.html").read_text(encoding="utf-8")
    assert 'href="shop/training/a/evaluation/report.html"' in page
    assert "shop, like: AUC of its runs" in page
    assert main(["runs", str(workspace / "nowhere")]) == 2


def test_a_project_is_not_taken_for_its_workspace(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(workspace / "shop")]) == 2
    assert f"name the workspace above it, {workspace}" in capsys.readouterr().err
    assert not (workspace / "shop" / "index.html").exists()
