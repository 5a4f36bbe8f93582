"""The verbs that change what a store serves, on a directory and on a URL."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from pipeline.cli.main import main
from tests.tiny_bundle import publish_tiny

URL = "memory://bucket/models"


@pytest.fixture(params=["directory", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store with the versions 1 and 2 of tiny, the second the current one."""
    store = tmp_path / "store"
    publish_tiny(store, tmp_path / "one")
    publish_tiny(store, tmp_path / "two", seed=1)
    if request.param == "directory":
        yield str(store)
        return
    for version in ("1", "2"):
        assert main(["push", str(store), "tiny", URL, "--version", version]) == 0
    yield URL
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_roll_back_and_take_away(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, "versions", place, "tiny") == {"model": "tiny", "versions": [1, 2], "current": 2}
    assert asked(capsys, "point", place, "tiny", "1") == {"model": "tiny", "before": 2, "current": 1}
    assert main(["unpublish", place, "tiny", "1"]) == 2
    assert "moerank point" in capsys.readouterr().err
    assert asked(capsys, "unpublish", place, "tiny", "2") == {"model": "tiny", "removed": 2}
    assert asked(capsys, "versions", place, "tiny") == {"model": "tiny", "versions": [1], "current": 1}


def test_what_is_not_there_is_one_message_and_code_1(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["point", place, "tiny", "9"], ["unpublish", place, "tiny", "9"]):
        assert main(words) == 1
        assert "it has: 1, 2" in capsys.readouterr().err
