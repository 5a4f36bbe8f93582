"""LightGBM's scores, made as docs/evaluation.md says, are judged by the README's line."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.main import main
from tests.page_commands import form

lightgbm = pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install 'moerank[trees]'")
ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Here lies ``lightgbm.parquet``, made by the page's own lines out of 1,200 impressions of 60 users."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    taste = rng.normal(size=1200)
    rows = pandas.DataFrame(
        {
            "impression": np.arange(1200),
            "user_id": rng.integers(0, 60, 1200),
            "taste": taste,
            "liked": (taste + rng.normal(size=1200) > 0).astype(int),
        }
    )
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(booster = lightgbm.*?)```", GUIDE, re.DOTALL)
    names = {"lightgbm": lightgbm, "train": rows[:600], "test": rows[600:], "columns": ["taste"]}
    exec(code, names)  # noqa: S102 - our own page
    return tmp_path


def words(page: str, start: str) -> list[str]:
    """The words of the one line of a page that begins so, without the program's name."""
    (line,) = re.findall(rf"^(?:\$ )?(moerank {re.escape(start)}.*)$", page, re.MULTILINE)
    return shlex.split(line)[1:]


def test_the_readme_s_line_judges_the_file_and_prints_what_it_shows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(README, "evaluate --predictions lightgbm.parquet")) == 0
    shown = README.partition("evaluate --predictions lightgbm.parquet")[2].splitlines()[1]
    printed = capsys.readouterr().out.splitlines()
    assert form(shown) in map(form, printed)
    assert (folder / "evaluation" / "report.html").exists()
