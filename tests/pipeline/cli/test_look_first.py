"""What is wrong with a command line is said at once, before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "onnx", "onnxruntime", "duckdb", "ibis", "prefect", "pandas", "scipy"}
RECIPE = """
name: t
data:
  events: {{path: {path}, user: u, item: i, time: at}}
  features: [{{name: u}}]
  tasks: [{{name: click, kind: binary, label: click}}]
  split: {{by: random, valid: 0.1, {more}}}
"""


def refused(directory: Path, *words: str) -> tuple[str, set[str]]:
    """What a command that must fail says, and which of the heavy libraries it has imported by then."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", *words],
        cwd=directory, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )  # fmt: skip
    assert done.returncode in {1, 2}, done.stderr
    lines = done.stderr.splitlines()
    imports = [line for line in lines if line.startswith("import time:")]
    assert any(line.endswith(" pipeline.cli.main") for line in imports)
    said = "\n".join(line for line in lines if line not in imports)
    return said, HEAVY & {line.rpartition("|")[2].strip() for line in imports}


@pytest.mark.parametrize("verb", ["features", "train", "run", "check", "schedule --cron x"])
def test_a_missing_recipe_costs_no_imports(tmp_path: Path, verb: str) -> None:
    name, *more = verb.split()
    said, heavy = refused(tmp_path, name, "nosuch.yaml", *more)
    assert "there is nothing at nosuch.yaml" in said
    assert heavy == set()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("init nosuch.parquet", "data.events: no Parquet file at 'nosuch.parquet'"),
        ("init c.yaml --users nosuch", "data.users: no Parquet file at 'nosuch'"),
        ("evaluate nosuch --data c.yaml", "BUNDLE: there is nothing at nosuch"),
        ("evaluate --predictions nosuch", "--predictions: there is nothing at nosuch"),
        ("predict nosuch --events c.yaml", "BUNDLE: there is nothing at nosuch"),
        ("evaluate bundle --data nosuch", "--data: there is nothing at nosuch"),
        ("predict bundle --events nosuch", "data.events: no Parquet file at 'nosuch'"),
        ("backtest bundle --events nosuch", "data.events: no Parquet file at 'nosuch'"),
        ("import kuairand nosuch out", "RAW_CSV_DIR: there is nothing at nosuch"),
        ("predict bundle --events c.yaml --out nosuch/a.parquet", "--out: there is no directory nosuch to write"),
        ("predict bundle --events c.yaml --out bundle", "--out: bundle is a directory; name a file"),
        ("evaluate bundle --events c.yaml --out c.yaml/a", "--out: c.yaml is a file where a directory belongs"),
    ],
)
def test_a_missing_bundle_or_file_costs_no_imports(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "c.yaml").touch()
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.onnx").touch()
    said, heavy = refused(tmp_path, *line.split())
    assert words in said
    assert heavy == set()


@pytest.mark.parametrize("verb", ["features", "run", "check"])
def test_a_missing_table_costs_no_imports(tmp_path: Path, verb: str) -> None:
    (tmp_path / "c.yaml").write_text(RECIPE.format(path="nosuch", more="test: 0.1"))
    said, heavy = refused(tmp_path, verb, "c.yaml")
    assert "data.events: no Parquet file at 'nosuch'" in said
    assert heavy == set()


def test_a_wrong_key_of_the_data_costs_no_imports(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(RECIPE.format(path="x", more="tset: 0.1"))
    said, heavy = refused(tmp_path, "train", "c.yaml")
    assert "did you mean 'test'" in said
    assert heavy == set()


def test_a_misspelled_verb_is_answered_with_the_command_that_was_meant(tmp_path: Path) -> None:
    assert "did you mean: moerank features c.yaml" in refused(tmp_path, "fetures", "c.yaml")[0]
