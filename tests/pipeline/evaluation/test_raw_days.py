"""A bundle judged on raw days, and compared with one of another features build."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.errors import SchemaMismatchError
from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.encode_days import RawDays
from features.recipe_files import save_recipe
from models.export import export
from pipeline.cli.main import main
from pipeline.evaluation.comparing.compare import compare
from pipeline.evaluation.evaluate import EvaluateConfig, evaluate
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw
from tests.models.small import lively_ranker, small_config

pytestmark = pytest.mark.slow

QUICK = EvaluateConfig(replicates=50, slice_replicates=50)
LAST = RawDays(first=date(2024, 3, 6))


@dataclass(frozen=True)
class World:
    """Raw tables, and two exported models of different features builds."""

    folder: Path
    champion: Path
    challenger: Path


def _export(folder: Path, name: str, valid: str, seed: int) -> Path:
    config = recipe(folder, split={"by": "expression", "valid": valid})
    features, out = folder / f"{name}-features", folder / name
    build(config, features, quiet)
    out.mkdir()
    schema = Schema.load(features)
    sample = next(BatchReader(features / "valid", schema, 64).epoch()).inputs
    export(lively_ranker(schema, small_config(gate={"name": "softmax"}), seed=seed), schema, sample, out / "model.onnx")
    schema.save(out)
    save_recipe(config, features, out)
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("raw-days")
    write_raw(folder, raw_tables())
    return World(folder, _export(folder, "champion", "day == 5", 1), _export(folder, "challenger", "day >= 4", 2))


def test_raw_days_give_the_figures_of_the_training_build(world: World, tmp_path: Path) -> None:
    encoded = evaluate(world.champion, world.folder / "champion-features" / "valid", None, tmp_path / "a", config=QUICK)
    words = ["--from", "2024-03-06", "--out", str(tmp_path / "b"), "--replicates", "50", "--json"]
    assert main(["evaluate", str(world.champion), *words]) == 0
    raw = json.loads((tmp_path / "b" / "evaluation.json").read_text())
    assert raw["rows"] == encoded.rows
    for task, metrics in encoded.tasks.items():
        for metric, estimate in metrics.items():
            assert raw["tasks"][task][metric]["value"] == pytest.approx(estimate.value, rel=1e-12), metric
    assert raw["data"].endswith("events.parquet from 2024-03-06")


def test_rows_of_another_build_are_refused_and_raw_days_compare_both(world: World) -> None:
    with pytest.raises(SchemaMismatchError, match="use rows and a model of one features build"):
        compare(world.champion, world.challenger, world.folder / "champion-features" / "valid", config=QUICK)
    found = compare(world.champion, world.challenger, days=LAST, config=QUICK)
    assert found.tasks["like"]["auc"].n > 50
    assert found.tasks["watch"]["rmse"].difference != 0.0


def test_no_combination_of_two_builds_gives_a_figure(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = (str(world.folder / f"{name}-features" / "valid") for name in ("champion", "challenger"))
    bundles = {ours: str(world.champion), theirs: str(world.challenger)}
    for data, bundle in bundles.items():
        words = ["--data", data, "--replicates", "50", "--out", str(tmp_path / Path(bundle).name)]
        assert main(["evaluate", bundle, *words]) == 0
    files = {data: str(tmp_path / Path(bundle).name / "predictions.parquet") for data, bundle in bundles.items()}
    out = ["--out", str(tmp_path / "out")]
    refused = [
        ["evaluate", bundles[ours], "--data", theirs, *out],
        ["evaluate", bundles[ours], "--data", ours, "--train", theirs, *out],
        ["compare", bundles[ours], bundles[theirs], "--data", ours, *out],
        ["compare", bundles[ours], bundles[theirs], "--data", theirs, *out],
        ["compare", bundles[ours], files[theirs], "--data", ours, *out],
        ["compare", files[theirs], bundles[ours], "--data", ours, *out],
        ["compare", bundles[ours], files[ours], "--data", theirs, *out],
        ["compare", files[ours], files[theirs], "--data", ours, *out],
    ]
    capsys.readouterr()
    for words in refused:
        assert main(words) != 0, words
        said = capsys.readouterr().err
        assert "schema" in said, words
        assert "features build" in said, said
    assert not (tmp_path / "out").exists()
    assert main(["compare", bundles[ours], files[ours], "--data", ours, "--replicates", "50", *out]) == 0


def test_predictions_carry_raw_ids_answers_and_experts(world: World, tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    assert main(["predict", str(world.champion), "--from", "2024-03-06", "--out", str(out)]) == 0
    table = pq.read_table(out)
    events = pq.read_table(world.folder / "events.parquet")
    last = events.filter(np.asarray(events["day"]) == 5)
    assert sorted(table["user"].to_pylist()) == sorted(last["user"].to_pylist())
    assert {"__user", "__time", "label__like", "prediction__like", "prediction__watch"} <= set(table.column_names)
    experts = [name for name in table.column_names if name.startswith("experts__0__")]
    assert experts
    assert all(table[name].combine_chunks().value_lengths().to_pylist() for name in experts)
    assert main(["compare", str(out), str(out), "--replicates", "50"]) == 0


def test_days_are_a_slice_in_the_log_s_time_zone(world: World, tmp_path: Path) -> None:
    words = ["--from", "2024-03-04", "--replicates", "50", "--slice-by", "hour,age,user_activity"]
    assert main(["evaluate", str(world.champion), *words, "--out", str(tmp_path)]) == 0
    slices = json.loads((tmp_path / "evaluation.json").read_text())["slices"]
    assert list(slices["day"]) == ["2024-03-04", "2024-03-05", "2024-03-06"]
    assert len(slices["hour"]) > 12
    assert "null" in slices["age"]
    assert len(slices["age"]) == 5
    assert slices["user_activity"]


def test_what_to_judge_on_is_said_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(world.champion)]) == 2
    assert "found none of them" in capsys.readouterr().err
    assert main(["evaluate", str(world.champion), "--data", "x", "--from", "2024-03-06"]) == 2
    assert main(["predict", str(world.champion)]) == 2
