"""`moerank init` on three sets as they lie: the file that it writes builds, and a request can be encoded."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from contract.errors import ConfigError
from features.build import build
from features.online.request_encoder import RankRequest, RequestEncoder
from pipeline.cli.main import main
from pipeline.project.data_project import DataProject, read_data
from pipeline.project.project_config import read_config
from tests.features.raw_world import quiet
from tests.pipeline.three_sets import write_export, write_news, write_shop

SHOP = ("log.parquet", "--users", "customers.parquet", "--items", "catalog.parquet")
NEWS = ("impressions.parquet", "--labels", "clicks.parquet")


def drafted(directory: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> DataProject:
    monkeypatch.chdir(directory)
    assert main(["init", *words]) == 0
    assert main(["check", "moerank.yaml"]) == 0
    assert len(Path("moerank.yaml").read_text().splitlines()) <= 40
    return read_data(Path("moerank.yaml"))


def test_a_draft_begins_with_the_small_dense_mixture_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path)
    drafted(tmp_path, monkeypatch, SHOP)
    config = read_config(Path("moerank.yaml"))
    assert (config.model.gate.name, config.model.experts, config.model.members) == ("softmax", 2, 3)
    assert config.model.expert_widths == (64, 32)
    assert config.train.embedding_learning_rate == 0.05


@pytest.mark.parametrize(
    ("write", "words", "tasks", "request_"),
    [
        (
            write_shop,
            SHOP,
            {"click", "purchase"},
            RankRequest("u-0007", ["SKU-000001", "SKU-000002"], {"device_os": "ios"}),
        ),
        (write_news, NEWS, {"click", "click_dwell_s"}, RankRequest(7, [1, 2], {"topic": "t1"})),
        (write_export, ("table",), {"eta_minutes", "basket_eur"}, RankRequest(7, [1, 2], {"city": "c1", "f_00": 0.5})),
    ],
)
def test_a_drafted_recipe_builds_as_it_is(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], None],
    words: Sequence[str],
    tasks: set[str],
    request_: RankRequest,
) -> None:
    write(tmp_path)
    project = drafted(tmp_path, monkeypatch, words)
    assert {task.name for task in project.data.tasks} == tasks
    made = build(project.data, tmp_path / "features", quiet)
    assert min(made.rows.values()) > 0
    encoded = RequestEncoder.open(tmp_path / "features").encode(request_)
    assert not encoded.unknown_user
    assert not encoded.unknown_items.any()


def test_a_label_table_says_which_impressions_were_clicked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_news(tmp_path)
    build(drafted(tmp_path, monkeypatch, NEWS).data, tmp_path / "features", quiet)
    rows = ds.dataset(tmp_path / "features" / "train", format="parquet").to_table(columns=["label__click"])
    truth = len(ds.dataset(tmp_path / "clicks.parquet").to_table()) / 6_000
    found = sum(rows["label__click"].to_pylist()) / len(rows)
    assert found == pytest.approx(truth, abs=0.02)


def test_a_log_without_a_label_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_news(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "impressions.parquet"]) == ConfigError.exit_code
    assert "--label COLUMN, out of impression_id" in capsys.readouterr().err


def test_a_label_may_be_named_and_a_file_is_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_news(tmp_path)
    project = drafted(tmp_path, monkeypatch, ("impressions.parquet", "--label", "slot"))
    assert [task.name for task in project.data.tasks] == ["slot"]
    assert main(["init", "impressions.parquet", "--label", "slot"]) == ConfigError.exit_code


def test_a_named_label_of_two_texts_is_predicted_and_one_without_choice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    incomes = ["<=50K", ">50K", "<=50K"] * 100
    log = {"age": [20 + row % 37 for row in range(300)], "income": incomes, "same": [1] * 300}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    project = drafted(tmp_path, monkeypatch, ("log.parquet", "--label", "income"))
    assert [task.label for task in project.data.tasks] == ["income == '>50K'"]
    assert main(["init", "log.parquet", "--label", "same", "--out", "other.yaml"]) == ConfigError.exit_code
    assert "--label 'same' cannot be predicted" in capsys.readouterr().err


def test_a_log_whose_columns_cannot_be_features_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"row": range(300), "clicked": [True, False, True] * 100}), tmp_path / "log.parquet")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "log.parquet"]) == ConfigError.exit_code
    assert "no column can be a feature; left out: row" in capsys.readouterr().err
