"""What may go: never what is served, nor the run that made it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from contract.files import write_text
from pipeline.project.project_config import read_config
from pipeline.project.retention import Project, RetentionConfig, outdated, prune, sizes
from serving.store import local_store
from tests.pipeline.tiny_project import write_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Five nights, of which each published one version; the second is the current one, after a rollback."""
    found = Project(tmp_path, tmp_path / "store", "shop")
    for night in range(1, 6):
        version = found.store / "shop" / str(night)
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(b"x" * 1000)
        publication = tmp_path / "training" / f"run{night}" / "publication"
        publication.mkdir(parents=True)
        record = {"step": "publish", "stamp": "", "made": "", "seconds": 0, "outputs": []}
        result = {"bundle": f"runs/shop/store/shop/{night}"}
        (publication / "step.json").write_text(json.dumps({**record, "result": result}))
        os.utime(publication.parent, (night, night))
    write_text("2\n", found.store / "shop" / local_store.POINTER_FILE)
    return found


def names(paths: tuple[Path, ...]) -> list[str]:
    return sorted(path.name for path in paths)


def test_the_newest_and_the_current_stay_with_their_runs(project: Project) -> None:
    going = outdated(project, RetentionConfig(runs=1, versions=2))
    assert sorted(going.versions) == [1, 3]
    assert names(going.runs) == ["run1", "run3"]


def test_without_rules_everything_stays(project: Project) -> None:
    going = outdated(project, RetentionConfig())
    assert (going.runs, going.versions) == ((), ())


def test_pruning_removes_just_that_and_no_number_is_given_twice(project: Project) -> None:
    prune(project, RetentionConfig(runs=1, versions=1))
    assert local_store.versions(project.store, "shop") == [2, 5]
    assert local_store.current(project.store, "shop") == 2
    assert [run.name for run in project.runs()] == ["run5", "run2"]
    assert local_store.next_version(project.store, "shop") == 6
    assert prune(project, RetentionConfig(runs=1, versions=1)).versions == ()


def test_a_file_that_two_parts_share_by_a_link_counts_once(project: Project) -> None:
    kept, features = project.root / "features-days", project.root / "features"
    kept.mkdir()
    features.mkdir()
    (kept / "day.parquet").write_bytes(b"x" * 500)
    os.link(kept / "day.parquet", features / "part.parquet")
    found = sizes(project)
    assert found["features"] + found["kept days"] == 500
    assert found["store"] >= 5000


def test_runs_go_where_nothing_was_ever_published(tmp_path: Path) -> None:
    for night in range(1, 4):
        run = tmp_path / "training" / f"run{night}"
        run.mkdir(parents=True)
        os.utime(run, (night, night))
    going = outdated(Project(tmp_path, tmp_path / "store", "shop"), RetentionConfig(runs=1, versions=1))
    assert names(going.runs) == ["run1", "run2"]


def test_old_days_of_the_served_log_go_and_what_they_were_encoded_with_stays(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log" / "model=shop"
    for name in ("date=2026-11-24", "date=2026-11-25", "date=2026-11-26", "_encodings"):
        (log / name).mkdir(parents=True)
        (log / name / "part.parquet").write_bytes(b"x" * 10)
    logged = replace(project, log=tmp_path / "log")
    assert sizes(logged)["served log"] == 40
    prune(logged, RetentionConfig(logs=2))
    assert sorted(path.name for path in log.iterdir()) == ["_encodings", "date=2026-11-25", "date=2026-11-26"]
    assert outdated(logged, RetentionConfig(logs=2)).logs == ()


@pytest.mark.parametrize(("trained_on", "is_pruned"), [(None, True), ("other", True), ("log", False), ("log/a", False)])
def test_a_log_that_is_trained_on_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_on: str | None, *, is_pruned: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log").mkdir()
    served = [] if trained_on is None else [f"data.events.served={trained_on}"]
    config = read_config(write_project(tmp_path), ["monitor.served=log", *served])
    assert config.parts.log == (tmp_path / "log" if is_pruned else None)
