"""Served features are compared with those of a build, feature by feature."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from contract.errors import ConfigError, DataError
from contract.schema import Schema
from features.feature_config import FeaturesConfig
from features.served_skew import SkewReport, compare_served
from pipeline.cli.main import main
from tests.features.raw_world import quiet, raw_tables, recipe
from tests.features.served.served_world import AGGREGATES, served_recipe, world


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world served, with its whole log of events in ``all.parquet``."""
    folder = tmp_path_factory.mktemp("skew")
    world(folder)
    pq.write_table(raw_tables()["events"], folder / "all.parquet")
    return folder


def recipe_of(folder: Path, events: str = "all.parquet") -> FeaturesConfig:
    blocks = {"path": str(folder / events), "served": str(folder / "log"), "user": "user", "item": "item",
              "time": "at", "served_within": "1s"}  # fmt: skip
    return recipe(folder, events=blocks, aggregates=AGGREGATES)


def compare(folder: Path, events: str = "all.parquet") -> SkewReport:
    return compare_served(recipe_of(folder, events), folder / f"{events}-days", quiet)


def test_features_that_requests_did_not_override_are_the_same_to_the_bit(shop: Path) -> None:
    report = compare(shop)
    assert {feature.name for feature in report.features} == {s.name for s in Schema.load(shop / "features").features}
    assert report.left_out == {}
    assert report.over(0.0) == ["age"]


def test_a_difference_is_named_with_its_share_its_size_and_examples(shop: Path) -> None:
    report = compare(shop)
    age = report.features[0]
    assert age.name == "age"
    assert 0.2 < age.share < 0.5
    assert 10 < age.largest < 20
    assert all(example["served"] == pytest.approx(30.5, abs=1e-5) for example in age.examples)
    assert len(age.examples) == 3
    assert any("request r-" in line for line in report.lines())
    assert report.over(0.5) == []


def test_tables_that_were_older_than_the_events_are_seen_in_the_rates(shop: Path) -> None:
    events = raw_tables()["events"]
    changed = events.set_column(
        events.column_names.index("liked"), "liked", pa.array(1 - events["liked"].to_numpy().astype("int8"))
    )
    pq.write_table(changed, shop / "changed.parquet")
    named = compare(shop, "changed.parquet").over(0.5)
    assert [name for name in named if "smoothed" in name or "like" in name]
    assert "age" not in named


def test_a_feature_that_the_recipe_no_longer_has_is_left_out_and_said(shop: Path) -> None:
    config = recipe_of(shop)
    fewer = config.model_copy(update={"features": config.features[:-1]})
    report = compare_served(fewer, shop / "fewer-days", quiet)
    assert report.left_out == {"tags": "the recipe does not have it"}


def test_a_recipe_without_a_log_is_refused(shop: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.events.served names no log"):
        compare_served(recipe(shop), shop / "none", quiet)


def test_events_none_of_which_were_served_are_refused(shop: Path) -> None:
    with pytest.raises(DataError, match="no event of the recipe's log is among the served requests"):
        compare(shop, "events.parquet")


def test_the_command_prints_the_features_and_its_exit_code_tells(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = {"name": "shop", "workspace": str(tmp_path), "data": recipe_of(shop).model_dump(mode="json")}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
    assert main(["skew", str(tmp_path / "shop.yaml")]) == 3
    printed = capsys.readouterr().out
    assert "over 0.01: age" in printed
    assert "rows differ, by up to" in printed
    assert main(["skew", str(tmp_path / "shop.yaml"), "--most", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["over"] == []
    assert main(["skew", str(tmp_path / "shop.yaml"), "--most", "2"]) == 2
    assert "--most is 2; allowed are shares from 0 to 1" in capsys.readouterr().err


def test_the_log_alone_is_compared_with_what_is_built_from_it(shop: Path) -> None:
    report = compare_served(served_recipe(shop), shop / "log-days", quiet)
    by_name = {feature.name: feature for feature in report.features}
    assert by_name["maker"].unequal == by_name["surface"].unequal == 0
    assert by_name["age"].unequal
