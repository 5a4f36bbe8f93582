"""Trials over a real recipe: kept, pruned, failed with a reason, and gone on with."""

import json
from pathlib import Path

import optuna
import pytest
from pydantic import JsonValue

from contract.errors import ConfigError
from pipeline.flow.steps import build_features
from pipeline.project.project_config import read_config
from pipeline.training.train import train
from pipeline.tuning.search import DATABASE, Search
from tests.pipeline.tiny_project import write_project

SPACE = """
tune:
  before_pruning: 2
  space:
    train.learning_rate: {low: 1e-4, high: 0.01, log: true}
    model.experts: {low: 2, high: 4}
    model.gate: {choices: [{name: softmax}, {name: top_k, k: 3}]}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with a space, and its features; paths in it are absolute."""
    folder = tmp_path_factory.mktemp("search")
    path = write_project(folder)
    text = path.read_text().replace("raw/", f"{folder}/raw/") + SPACE
    path.write_text(f"workspace: {folder}/runs\n{text}")
    build_features(read_config(path))
    return path


def opened(recipe: Path, directory: Path, *overrides: str) -> Search:
    return Search(recipe, list(overrides), directory, "study")


def silent(text: str) -> None:
    del text


def test_the_recipe_is_the_first_trial_and_the_best_is_found(recipe: Path, tmp_path: Path) -> None:
    search = opened(recipe, tmp_path)
    features = search.base.features_dir
    first, second = (search.run(features, silent) for _ in range(2))
    values = search.values(first)
    assert values == {"train.learning_rate": 1e-3, "model.experts": 4, "model.gate": {"name": "softmax"}}
    assert search.is_recipe(values)
    assert not search.is_recipe(search.values(second))
    assert search.best().value == max(first.value or 0.0, second.value or 0.0)
    assert set(first.user_attrs["metrics"]) == {"like", "rating"}


def test_a_teacher_a_ranking_loss_and_rates_are_searched_over_together(recipe: Path, tmp_path: Path) -> None:
    base = read_config(recipe)
    teacher = tmp_path / "teacher"
    train(base.features_dir, base.model, base.train, teacher, silent)
    taught: dict[str, JsonValue] = {"run": str(teacher), "weight": 0.5}
    pairwise: dict[str, JsonValue] = {"like": {"name": "pairwise", "within": "user", "weight": 0.3}}
    space = {
        "train.teacher": {"choices": [None, taught]},
        "train.within_user": {"choices": [{}, pairwise]},
        "train.learning_rate": {"low": 1e-4, "high": 0.01, "log": True},
    }
    search = opened(recipe, tmp_path / "search", f"tune.space={json.dumps(space)}", "tune.before_pruning=9")
    values = [search.values(search.run(base.features_dir, silent)) for _ in range(6)]
    assert {trial.state for trial in search.trials()} == {optuna.trial.TrialState.COMPLETE}
    assert search.is_recipe(values[0])
    assert {bool(each["train.teacher"]) for each in values} == {True, False}
    assert {bool(each["train.within_user"]) for each in values} == {True, False}
    settings = search.settings({"train.teacher": taught, "train.within_user": pairwise})
    assert settings.train.teacher is not None
    assert settings.train.within_user["like"].name == "pairwise"


def test_settings_that_cannot_be_trained_are_a_failed_trial_with_its_reason(recipe: Path, tmp_path: Path) -> None:
    space = "tune.space={model.gate: {choices: [{name: top_k, k: 3}, {name: top_k, k: 4}]}}"
    search = opened(recipe, tmp_path, space, "model.experts=2")
    failed = search.run(search.base.features_dir, silent)
    assert failed.state == optuna.trial.TrialState.FAIL
    assert "k is 3" in failed.user_attrs["why"] or "experts" in failed.user_attrs["why"]
    assert [trial.number for trial in search.trials()] == [0]


def test_an_interrupted_trial_is_tried_again_with_the_same_settings(recipe: Path, tmp_path: Path) -> None:
    search = opened(recipe, tmp_path)
    storage = f"sqlite:///{tmp_path / DATABASE}"
    lost = optuna.load_study(study_name="study", storage=storage).ask()
    lost.suggest_float("train.learning_rate", 1e-4, 0.01, log=True)
    lost.suggest_int("model.experts", 2, 4)
    lost.suggest_categorical("model.gate", ['{"name": "softmax"}', '{"name": "top_k", "k": 3}'])
    again = opened(recipe, tmp_path)
    assert again.trials() == []
    assert again.run(search.base.features_dir, silent).params == lost.params


def test_a_space_that_the_recipe_does_not_take_is_refused_before_any_trial(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="embedding_dims: no such key"):
        opened(recipe, tmp_path, "tune.space={model.embedding_dims: {low: 2, high: 4}}")
    with pytest.raises(ConfigError, match="nothing to search over"):
        opened(recipe, tmp_path, "tune.space={}")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{data.seed: {low: 0, high: 2}}", "cannot be searched over"),
        ("{train.seed: {low: 0, high: 2}}", "the same in all trials"),
        ("{model.experts: {low: 4, high: 2}}", "`low` must be less than `high`"),
        ("{model.experts: {low: 4}}", "give `low` and `high`"),
        ("{train.learning_rate: {low: 0, high: 1, log: true}}", "above 0"),
        ("{model.gate: {choices: [1, 2], log: true}}", "or `choices`"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_by_name(recipe: Path, space: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(recipe, [f"tune.space={space}"])
