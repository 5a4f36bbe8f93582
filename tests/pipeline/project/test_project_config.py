"""Reading a YAML file into settings."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from contract.errors import ConfigError
from contract.settings import Settings
from pipeline.yaml_file import read_settings


class Soft(Settings):
    name: Literal["soft"]
    heat: float = 1.0


class Hard(Settings):
    name: Literal["hard"]
    edge: int = 1


class Source(Settings):
    path: str
    rows: int = 5


class Whole(Settings):
    title: str = "none"
    sources: tuple[Source, ...] = ()
    gate: Annotated[Soft | Hard, Field(discriminator="name")] = Soft(name="soft")
    extra: Source | None = None
    named: dict[str, Source] = {}


def read(tmp_path: Path, text: str, *overrides: str, **environment: str) -> Whole:
    path = tmp_path / "whole.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, Whole, overrides=overrides, environment=environment)


def refusal(tmp_path: Path, text: str, *overrides: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *overrides, **environment)
    return str(caught.value)


def test_values_reach_the_settings(tmp_path: Path) -> None:
    whole = read(tmp_path, "title: films\nsources:\n- {path: a, rows: 3}\ngate: {name: hard, edge: 2}\n")
    assert whole == Whole(title="films", sources=(Source(path="a", rows=3),), gate=Hard(name="hard", edge=2))


def test_variables_are_filled_in_at_any_depth(tmp_path: Path) -> None:
    text = "title: $${PLAIN}\nsources:\n- {path: '${ROOT}/x', rows: '${ROWS:-7}'}\n"
    whole = read(tmp_path, text, ROOT="/data")
    assert whole.title == "${PLAIN}"
    assert whole.sources == (Source(path="/data/x", rows=7),)


def test_variables_stand_for_numbers_and_in_flow_style(tmp_path: Path) -> None:
    text = "title: t\nsources: [{path: ${ROOT}/x, rows: ${ROWS}}, {path: a, rows: ${MORE:-9}}]\n"
    whole = read(tmp_path, text, ROOT="/data", ROWS="12")
    assert whole.sources == (Source(path="/data/x", rows=12), Source(path="a", rows=9))


@pytest.mark.parametrize("word", ["off", "on", "no", "yes", "Off"])
def test_words_that_older_yaml_takes_for_booleans_are_texts(tmp_path: Path, word: str) -> None:
    assert read(tmp_path, f"title: {word}\n").title == word


def test_an_unset_variable_is_named_with_its_place(tmp_path: Path) -> None:
    said = refusal(tmp_path, "sources:\n- {path: '${ROOT}/x'}\n")
    assert "sources[0].path uses ${ROOT}" in said
    assert "${ROOT:-value}" in said


def test_an_unknown_key_names_its_path_its_value_and_the_nearest_allowed_key(tmp_path: Path) -> None:
    said = refusal(tmp_path, "sources:\n- {path: a, row: 3}\n")
    assert "sources[0].row: no such key (value 3); did you mean 'rows'; allowed are path, rows" in said


def test_an_unknown_key_below_a_union_lists_the_keys_of_the_chosen_member(tmp_path: Path) -> None:
    said = refusal(tmp_path, "gate: {name: hard, heat: 3}\n")
    assert "gate.heat: no such key (value 3); allowed are edge, name" in said


@pytest.mark.parametrize("key", ["extra", "named: {one"])
def test_an_unknown_key_below_an_optional_or_named_block_is_found(tmp_path: Path, key: str) -> None:
    said = refusal(tmp_path, f"{key}: {{path: a, rovs: 1}}" + ("}" if "{" in key else ""))
    assert "rovs: no such key (value 1); did you mean 'rows'; allowed are path, rows" in said


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, "titel: x\nsources:\n- {rows: many}\n")
    assert "titel: no such key (value 'x'); did you mean 'title'" in said
    assert "sources[0].path: this key is required" in said
    assert "sources[0].rows: Input should be a valid integer" in said
    assert "(found 'many')" in said


def test_an_unknown_member_of_a_union_lists_the_members(tmp_path: Path) -> None:
    said = refusal(tmp_path, "gate: {name: sofd}\n")
    assert "gate:" in said
    assert "'soft', 'hard'" in said


def test_an_override_wins_over_the_file_and_may_create_blocks(tmp_path: Path) -> None:
    whole = read(tmp_path, "title: a\n", "title=b", "gate.name=hard", "gate.edge=4")
    assert (whole.title, whole.gate) == ("b", Hard(name="hard", edge=4))


@pytest.mark.parametrize("override", ["title", "=x", "gate..name=hard"])
def test_an_override_that_is_no_assignment_is_refused(tmp_path: Path, override: str) -> None:
    assert "write KEY.PATH=VALUE" in refusal(tmp_path, "title: a\n", override)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", "not valid YAML"),
        ("title: a\ntitle: b\n", "given twice (line 2, column 1)"),
        ("- a\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("title: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_missing_file_is_named_with_the_directory_that_relative_paths_start_at() -> None:
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.yaml \(relative paths start at /"):
        read_settings(Path("nowhere.yaml"), Whole)
