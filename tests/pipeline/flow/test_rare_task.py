"""A night without a positive row of a rare task: it is named, the others go on, and the model answers for all."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.schema import Schema
from pipeline.cli.main import main
from pipeline.evaluation.result import Evaluation
from pipeline.flow.steps import required
from tests.pipeline.tiny_project import write_project

pytestmark = pytest.mark.slow
STARS = "    - {name: rating, kind: regression"
LOVE = "    - {name: love, kind: binary, label: rating >= 5}\n"
GUARD = "quality: {no_worse_than: current}\n"


def publish(project: Path) -> None:
    for verb in ("features", "train"):
        assert main([verb, project.name]) == 0
    runs = (project.parent / "runs" / "tiny" / "training").iterdir()
    assert main(["publish", str(max(runs, key=lambda run: run.stat().st_mtime))]) == 0


def test_a_night_without_a_positive_row_of_one_task_publishes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    project = write_project(tmp_path)
    recipe = project.read_text(encoding="utf-8").replace(STARS, LOVE + STARS)
    project.write_text(recipe + GUARD, encoding="utf-8")
    publish(project)
    events = tmp_path / "raw" / "events.parquet"
    log = pq.read_table(events)
    pq.write_table(log.filter(pc.less(log["rating"], 5)), events)
    capfd.readouterr()
    publish(project)
    said = capfd.readouterr().err
    assert "features: task 'love' learns nothing: its label 'rating >= 5' is 0 in all" in said
    assert "a version served before may" in said
    features = tmp_path / "runs" / "tiny" / "features"
    assert list(required(features, "").result["unlearned"]) == ["love"]
    bundles = sorted((tmp_path / "runs" / "tiny" / "store" / "tiny").glob("[0-9]*"))
    assert [bundle.name for bundle in bundles] == ["1", "2"]
    assert [task.name for task in Schema.load(bundles[1]).tasks] == ["like", "love", "rating"]
    assert "auc" in Evaluation.load(bundles[1]).undefined["love"]
