"""The paired test against the version that is served."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from contract.dataset import EncodedDataset
from contract.schema import Schema
from features.batches import BatchReader
from features.build import build
from features.recipe_files import save_recipe
from models.export import export
from pipeline.cli.main import main
from pipeline.evaluation.comparing import slice_differences
from pipeline.evaluation.matching import common_rows
from pipeline.evaluation.measure import Context, EvaluateConfig, measure
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.quality_gate import QualityConfig
from pipeline.project.project_config import ProjectConfig
from pipeline.release import against_current
from pipeline.release.against_current import paired_with_current
from pipeline.report import write_report
from serving.store.bundle import publish
from tests.features.raw_world import quiet, raw_tables, recipe, write_raw
from tests.models.small import lively_ranker, small_config


@dataclass(frozen=True)
class Nights:
    """A project whose store has version 1, and a second night's features build with what version 1 says of its rows."""

    config: ProjectConfig
    held_out: Path
    folder: Path


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    folder = tmp_path_factory.mktemp("nights")
    write_raw(folder, raw_tables())
    first, second = (recipe(folder, split={"by": "expression", "valid": valid}) for valid in ("day == 4", "day == 5"))
    build(first, folder / "first", quiet)
    made = folder / "made"
    made.mkdir()
    schema = Schema.load(folder / "first")
    sample = next(BatchReader(folder / "first" / "valid", schema, 64).epoch()).inputs
    export(lively_ranker(schema, small_config(gate={"name": "softmax"})), schema, sample, made / "model.onnx")
    schema.save(made)
    save_recipe(first, folder / "first", made)
    config = ProjectConfig(
        name="shop",
        workspace=folder / "runs",
        data=second,
        evaluate=EvaluateConfig(replicates=100, slice_replicates=50),
    )
    facts = {"schema_fingerprint": schema.fingerprint(), "tasks": ["like", "watch"]}
    publish(config.store, "shop", {path.name: path for path in made.iterdir()}, facts)
    build(second, folder / "second", quiet)
    return Nights(config, folder / "second" / "valid", folder)


def _predictions(nights: Nights) -> Predictions:
    """The held-out rows with scores that a good model might give."""
    reader = BatchReader(nights.held_out, Schema.load(nights.held_out.parent), 4096)
    batches = list(reader.epoch())
    labels = np.concatenate([batch.labels for batch in batches])
    return Predictions(
        tasks={"like": "binary", "watch": "regression"},
        labels=labels,
        weights=np.concatenate([batch.weights for batch in batches]),
        scores=(0.2 + 0.6 * labels).astype(np.float32),
        user=np.concatenate([batch.user for batch in batches]),
        item=np.concatenate([batch.item for batch in batches]),
        time=reader.dataset.read(["__time"])["__time"].to_numpy(),
    )


def test_a_better_model_passes_on_the_same_events_by_both_recipes(nights: Nights, tmp_path: Path) -> None:
    new = _predictions(nights)
    new.save(tmp_path / "predictions.parquet")
    found = paired_with_current(nights.config, tmp_path, nights.held_out)
    assert all(finding.passed for finding in found.findings)
    assert found.compared is not None
    assert (found.compared.version, found.compared.rows) == (1, new.rows)
    assert found.compared.first.startswith("2024-03-06")
    assert "is no worse than" in found.findings[0].text
    assert found.compared.tasks["like"].b == 1.0


def test_a_clearly_worse_model_is_refused_in_words(nights: Nights, tmp_path: Path) -> None:
    new = _predictions(nights)
    replace(new, scores=(1.0 - new.scores).astype(np.float32)).save(tmp_path / "predictions.parquet")
    like = paired_with_current(nights.config, tmp_path, nights.held_out).findings[0]
    assert not like.passed
    assert like.text.startswith("like: auc 0.0000 is worse than 0.")
    assert "of version 1 (" in like.text


def test_a_store_without_a_version_has_nothing_to_compare_with(nights: Nights, tmp_path: Path) -> None:
    config = nights.config.model_copy(update={"name": "another"})
    (finding,) = paired_with_current(config, tmp_path, nights.held_out).findings
    assert finding.passed
    assert finding.text == "there is no version yet to compare with"


def test_what_cannot_be_compared_does_not_pass(nights: Nights, tmp_path: Path) -> None:
    (finding,) = paired_with_current(nights.config, tmp_path / "nowhere", nights.held_out).findings
    assert not finding.passed
    assert finding.text.startswith("version 1 cannot be compared: ")


def test_a_task_that_the_recipes_define_differently_is_not_compared(nights: Nights, tmp_path: Path) -> None:
    # The current version's AUC of its own labels says nothing about the new model's of others.
    new = _predictions(nights)
    new.labels[:5, 0] = 1.0 - new.labels[:5, 0]
    new.save(tmp_path / "predictions.parquet")
    (finding,) = paired_with_current(nights.config, tmp_path, nights.held_out).findings
    assert not finding.passed
    assert f"like has other labels or weights in 5 of {new.rows} rows" in finding.text


def test_a_task_that_one_version_lacks_is_left_out_of_the_comparison(nights: Nights, tmp_path: Path) -> None:
    _predictions(nights).of_tasks(["watch"]).save(tmp_path / "predictions.parquet")
    found = paired_with_current(nights.config, tmp_path, nights.held_out)
    assert found.compared is not None
    assert found.compared.tasks.keys() == {"watch"}


def test_a_task_without_positives_is_named_beside_those_that_were_compared(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = _predictions(nights)
    new.labels[:, 0] = 0.0
    new.save(tmp_path / "predictions.parquet")
    monkeypatch.setattr(against_current, "_score", lambda *_: new)
    found = paired_with_current(nights.config, tmp_path, nights.held_out).findings
    (like,) = [finding for finding in found if finding.text.startswith("like cannot be compared")]
    assert like.passed
    assert like.text.endswith(f"with version 1: none of the {new.rows} rows is positive")


def test_versions_by_day_are_one_table_in_which_one_that_cannot_be_scored_says_why(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    version = nights.config.store / "shop" / "1"
    assert main(["backtest", str(version), str(nights.folder / "made"), "--from", "2024-03-05"]) == 0
    told = capsys.readouterr().out
    assert "like: auc" in told
    assert re.search(r"version +all +2024-03-05 +2024-03-06", told)
    assert re.search(r"shop/1 +0\.\d{4} +0\.\d{4} +0\.\d{4}  \[0\.", told)
    assert "made: " in told


def test_common_rows_are_those_of_both_with_repetitions_in_their_order(nights: Nights) -> None:
    new = _predictions(nights)
    order = np.random.default_rng(2).permutation(new.rows)[: new.rows // 2]
    part = replace(
        new,
        **{name: getattr(new, name)[order] for name in ("labels", "weights", "scores", "user", "item", "time")},
    )
    one, other = common_rows(new, part)
    assert one.rows == other.rows == order.size
    assert np.array_equal(one.user, other.user)
    assert np.array_equal(one.labels, other.labels)


def test_a_slice_that_is_clearly_worse_refuses_though_the_whole_is_better(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right everywhere but where the surface is the most frequent one, where every answer is wrong."""
    monkeypatch.setattr(slice_differences, "LEAST_USERS", 5)
    new = _predictions(nights)
    surface = EncodedDataset.open(nights.held_out).read(["surface"])["surface"].to_numpy()
    mask = surface == np.bincount(surface).argmax()
    scores = np.where(mask[:, None], 1.0 - new.scores, 0.3 + 0.4 * new.scores).astype(np.float32)
    replace(new, scores=scores).save(tmp_path / "predictions.parquet")
    evaluate = nights.config.evaluate.model_copy(update={"slice_by": ("surface",)})
    config = nights.config.model_copy(update={"evaluate": evaluate})
    found = paired_with_current(config, tmp_path, nights.held_out)
    failed = [finding for finding in found.findings if not finding.passed]
    worse = [finding.text for finding in failed if finding.rule == "slices no worse than current"]
    assert any(text.startswith("like where surface is ") and "widened for" in text for text in worse)
    assert found.compared is not None
    assert {each.slice for each in found.compared.slices} >= {"surface"}
    none = config.model_copy(update={"quality": QualityConfig(slices=())})
    without = paired_with_current(none, tmp_path, nights.held_out).compared
    assert without is not None
    assert without.slices == ()


def test_slices_of_a_better_model_pass_and_say_how_many_were_tested(nights: Nights, tmp_path: Path) -> None:
    _predictions(nights).save(tmp_path / "predictions.parquet")
    evaluate = nights.config.evaluate.model_copy(update={"slice_by": ("surface",)})
    config = nights.config.model_copy(update={"evaluate": evaluate})
    last = paired_with_current(config, tmp_path, nights.held_out).findings[-1]
    assert last.passed
    assert re.match(r"no slice is clearly worse than with version 1 \(\d+ tests", last.text)


def test_what_was_compared_is_kept_and_shown_in_the_report(nights: Nights, tmp_path: Path) -> None:
    new = _predictions(nights)
    context = Context(
        "shop/2", "held out", {"constant": np.full_like(new.scores, 0.5)}, units={"watch": "log1p seconds"}
    )
    measure(new, context, nights.config.evaluate, tmp_path)
    new.save(tmp_path / "predictions.parquet")
    found = paired_with_current(nights.config, tmp_path, nights.held_out)
    assert found.compared is not None
    found.compared.save(tmp_path)
    gate = [finding.model_dump() for finding in found.findings]
    (tmp_path / "gate.json").write_text(json.dumps(gate), encoding="utf-8")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Quality gate: passed" in page
    assert "Against version 1" in page
    assert "is no worse than" in page
    assert "rmse, log1p seconds *" in page
