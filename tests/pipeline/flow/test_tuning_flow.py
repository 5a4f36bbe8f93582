"""The third flow, by its command: trials, the test over seeds, the page, and the same command once more."""

import json
from pathlib import Path

import pytest

from tests.pipeline.flow.shop import command, environment_of
from tests.pipeline.tiny_project import write_project

pytestmark = pytest.mark.slow
SPACE = "\ntune: {trials: 2, seeds: 2, space: {train.learning_rate: {low: 1.0e-4, high: 0.05, log: true}}}\n"


def test_a_search_ends_with_a_test_over_seeds_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    recipe = write_project(tmp_path)
    recipe.write_text(recipe.read_text() + SPACE)
    environment = environment_of(tmp_path)
    line = ("tune", "tiny.yaml", "--set", "train.epochs=1", "--json")
    done = command(tmp_path, environment, *line)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"] == 2
    assert {each["task"] for each in found["seeds"]} == ({"like", "rating"} if found["overrides"] else set())
    assert "Against the recipe, over 2 seeds" in (tmp_path / found["page"]).read_text()
    again = command(tmp_path, environment, *line, "--trials", "3")
    assert again.returncode == 0, again.stderr
    assert "goes on after 2 trials" in again.stderr
    assert json.loads(again.stdout)["trials"] == 3
