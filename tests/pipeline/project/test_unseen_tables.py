"""`moerank init` on logs of other kinds: the file that it writes is checked, builds, and of some it trains."""

import re
from pathlib import Path

import pytest

from features.build import build
from pipeline.cli.main import main
from pipeline.flow import steps
from pipeline.project.data_project import DataProject, read_data
from pipeline.project.project_config import read_config
from tests.features.raw_world import quiet
from tests.pipeline.unseen_tables import UNSEEN

SHORT = ["train.epochs=1", "train.batch_size=256", "evaluate.replicates=50", "evaluate.slice_replicates=50"]


def drafted(directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> DataProject:
    monkeypatch.chdir(directory)
    UNSEEN[kind].write(directory)
    assert main(["init", *UNSEEN[kind].words]) == 0
    assert "could not be tried" not in Path("moerank.yaml").read_text(encoding="utf-8")
    return read_data(Path("moerank.yaml"))


@pytest.mark.parametrize("kind", UNSEEN)
def test_the_drafted_recipe_of_an_unseen_kind_builds(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = drafted(tmp_path, monkeypatch, kind)
    assert {task.name for task in project.data.tasks} == UNSEEN[kind].tasks
    assert main(["check", "moerank.yaml"]) == 0
    assert min(build(project.data, tmp_path / "features", quiet).rows.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jobs", "ads", "nested"])
def test_the_drafted_recipe_of_an_unseen_kind_trains(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted(tmp_path, monkeypatch, kind)
    config = read_config(Path("moerank.yaml"), SHORT)
    steps.build_features(config)
    run = steps.train_model(config)
    steps.export_model(run)
    steps.evaluate_model(run)
    published = steps.publish_model(run)
    assert set(published.metrics) == UNSEEN[kind].tasks
    assert (published.bundle / "model.onnx").is_file()


def test_what_came_after_the_answer_is_no_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafted(tmp_path, monkeypatch, "jobs")
    text = Path("moerank.yaml").read_text(encoding="utf-8")
    assert "left out, because it alone tells a label, and so came with it or after it: appliedAt" in text
    assert "name: appliedAt" not in text


def test_a_folder_that_only_tells_the_day_is_no_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {feature.name for feature in drafted(tmp_path, monkeypatch, "partitioned").data.features}
    assert names == {"rider", "driver_id", "zone", "surge", "vehicle", "hour", "weekday"}


def test_a_key_that_its_own_table_names_and_types_otherwise_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = drafted(tmp_path, monkeypatch, "ratings").data.items
    assert items is not None
    assert (items.columns[items.key], items.newest) == ("int(ISBN)", "title")


def test_a_column_of_one_name_in_three_tables_is_three_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = drafted(tmp_path, monkeypatch, "jobs").data
    assert data.items is not None
    assert data.users is not None
    assert data.events.time == "shownAt"
    assert data.items.columns["item_shown_at"] == "shownAt"
    assert data.users.columns["user_page"] == "page"


def test_keys_and_the_time_may_be_fields_of_structs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = drafted(tmp_path, monkeypatch, "nested").data.events
    assert events.user is not None
    assert events.item is not None
    assert events.time is not None
    assert events.columns[events.user] == "session.viewer"
    assert events.columns[events.item] == "video.id"
    assert events.columns[events.time] == "from_epoch(playback.started_ms, 'ms')"


def test_iso_texts_are_times_whatever_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = drafted(tmp_path, monkeypatch, "board").data
    assert data.users is not None
    assert (data.events.time, data.users.newest) == ("seen", "updated")
    assert {feature.name for feature in data.features} == {"seeker_id", "posting_id", "city", "hour", "weekday"}


def test_a_birthday_as_text_is_a_time_and_what_is_no_feature_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = drafted(tmp_path, monkeypatch, "seekers").data
    assert data.users is not None
    assert data.users.columns["birthday"] == "from_local(birthday, 'UTC')"
    assert data.users.columns["joined"] == "from_local(parse_time(joined, '%d.%m.%Y'))"
    assert {feature.name: feature.kind for feature in data.features}["birthday"] == "dense"
    (note,) = re.findall(r"# left out: (.*)", Path("moerank.yaml").read_text(encoding="utf-8"))
    assert note == (
        "request (a value of its own in each row); links (a list of neither names nor numbers); country (one value); "
        "updated (when the row was written)"
    )


def test_labels_that_come_late_are_waited_for_no_longer_than_leaves_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = drafted(tmp_path, monkeypatch, "ads").data
    assert data.labels[0].within == "7d"
    assert {task.within for task in data.tasks} == {"7d"}
    assert "of them come within that time" in Path("moerank.yaml").read_text(encoding="utf-8")


def test_a_log_of_positives_is_asked_for_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    UNSEEN["ads"].write(tmp_path)
    assert main(["init", "clicks.parquet"]) == 2
    assert "or say --positives" in capsys.readouterr().err
    assert main(["init", "clicks.parquet", "--positives"]) == 0
    data = read_data(Path("moerank.yaml")).data
    assert data.negatives is not None
    assert min(build(data, tmp_path / "features", quiet).rows.values()) > 0
