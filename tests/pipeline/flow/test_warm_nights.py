"""Nights that go on from the published model: which run they start from, what they say, and when they start over."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from pipeline.cli.main import main
from pipeline.flow import steps
from pipeline.flow.starting_point import starting_point
from pipeline.flow.steps import Run
from pipeline.project.project_config import ProjectConfig, read_config
from pipeline.training.checkpoint import read_meta, stored
from tests.pipeline.tiny_project import leave_late_events_out, write_project

WARM = ["train.start_from=current", "data.split={by: time, valid: 7d, test: 7d}"]


def night(config: ProjectConfig, *, publish: bool = True) -> Run:
    steps.build_features(config)
    run = steps.train_model(config)
    if publish:
        steps.export_model(run)
        steps.evaluate_model(run)
        steps.publish_model(run)
    return run


@pytest.mark.slow
def test_each_night_goes_on_from_the_published_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    project = write_project(tmp_path)
    log, early = leave_late_events_out(project)
    config = read_config(project, WARM)
    assert starting_point(config) is None
    first = night(config)
    assert steps.required(first.directory, "").result["generation"] == 0
    assert night(config).directory == first.directory
    with pytest.raises(ConfigError, match=r"no newer rows than those of .*set train.warm.new_rows: false"):
        steps.train_model(read_config(project, [f"train.start_from={first.directory}", WARM[1], "train.epochs=3"]))
    # A model that is to grow does so on the rows that made the smaller one.
    grow = ["model.experts=6", "train.warm={grow: copy, new_rows: false}"]
    grown = steps.train_model(read_config(project, [f"train.start_from={first.directory}", WARM[1], *grow]))
    assert grown.directory != first.directory
    assert f"starts from {first.directory.name}" in capsys.readouterr().err
    assert steps.train_model(read_config(project, [*WARM, *grow])).directory != first.directory
    assert f"starts from {first.directory.name}" in capsys.readouterr().err
    # A file that was written again is another build, though of the same rows; a late row of a day gone by is no newer.
    pq.write_table(early, tmp_path / "raw" / "events.parquet", row_group_size=500)
    assert night(config).directory == first.directory
    late = pa.concat_tables([early.slice(0, 300), early]).sort_by("time")
    pq.write_table(late, tmp_path / "raw" / "events.parquet")
    night(config, publish=False)
    pq.write_table(log, tmp_path / "raw" / "events.parquet")
    capsys.readouterr()
    second = night(config, publish=False)
    assert second.directory != first.directory
    assert f"starts from {first.directory.name}" in capsys.readouterr().err
    record = steps.required(second.directory, "").result
    assert record["generation"] == 1
    assert record["epochs"] == 1
    rows = read_meta(stored(second.directory)[0]).progress.step * 256
    assert rows < 0.5 * len(log)
    anew = read_config(project, [*WARM, "train.warm.scratch_every=1"])
    assert starting_point(anew) is None
    assert starting_point(read_config(project, [*WARM, "model.experts=2"])) is None
    assert starting_point(read_config(project, [*WARM, "model.experts=2", "train.warm.grow=copy"])) is None
    by_path = read_config(project, [f"train.start_from={first.directory}", *WARM[1:]])
    assert starting_point(by_path) == starting_point(config)
    bundle = tmp_path / "runs" / "tiny" / "store" / "tiny" / "1"
    by_bundle = starting_point(read_config(project, [f"train.start_from={bundle}", *WARM[1:]]))
    assert by_bundle is not None
    assert by_bundle.directory.name == first.directory.name
    damaged = next((first.directory / "checkpoint").glob("step-*/*.distcp"))
    for file in (first.directory / "checkpoint").glob("step-*/*.distcp"):
        file.write_bytes(b"damaged")
    assert starting_point(config) is None
    assert f"training from nothing: {damaged.name} in " in capsys.readouterr().err
    shutil.rmtree(first.directory)
    assert starting_point(config) is None
    assert "training from nothing: no run below" in capsys.readouterr().err


def test_a_teacher_that_was_trained_anew_makes_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    project = write_project(tmp_path)
    assert main(["features", str(project)]) == 0
    capsys.readouterr()
    # Two seeds in one command; the first run is the teacher.
    assert main(["train", str(project), "--seeds", "2", "--set", "train.epochs=1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["seeds"] == [0, 1]
    assert {each["task"] for each in said["metrics"]} == {"like", "rating"}
    teacher, other = (Path(directory) for directory in said["runs"])
    taught = read_config(project, [f"train.teacher={{run: {teacher}}}", "train.epochs=1"])
    first = steps.train_model(taught)
    assert steps.train_model(taught).directory == first.directory
    shutil.rmtree(teacher / "checkpoint")
    shutil.copytree(other / "checkpoint", teacher / "checkpoint")
    assert steps.train_model(taught).directory != first.directory


def test_a_run_that_is_not_there_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    config = read_config(project, [f"train.start_from={tmp_path}/nothing"])
    with pytest.raises(
        ConfigError, match="which is not a finished run; it may be none, current, the directory of a run"
    ):
        starting_point(config)
