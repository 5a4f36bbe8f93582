"""The documentation builds as a site, and a link that leads nowhere is found."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on a folder of its own."""
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_site", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SITE", tmp_path)
    return module


def test_a_link_to_no_page_and_one_to_no_heading_are_found(builder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<h1 id="here">A</h1><a href="b.html">b</a><a href="#here">a</a>')
    (tmp_path / "b.html").write_text('<a href="c.html">c</a><a href="a.html#there">a</a><a href="https://x.y">x</a>')
    assert sorted(builder.broken()) == ["b.html: a.html#there", "b.html: c.html"]


def test_every_page_of_the_navigation_is_there() -> None:
    lines = (ROOT / "zensical.toml").read_text(encoding="utf-8").splitlines()
    pages = [line.rpartition('= "')[2].partition('"')[0] for line in lines if '.md" }' in line]
    assert len(pages) > 15
    assert [page for page in pages if page != "index.md" and not (ROOT / page).is_file()] == []
