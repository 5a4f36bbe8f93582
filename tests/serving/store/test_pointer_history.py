"""Which version served when."""

import os
from pathlib import Path

import pytest

from contract.errors import IntegrityError
from serving.store import local_store
from serving.store.pointer_history import HISTORY_FILE, PointerChange, pointer_changes, served_between
from tests.tiny_bundle import publish_tiny

FAR = 2**61


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with the versions 1 and 2, of which 1 was made current again."""
    for number in (1, 2):
        publish_tiny(tmp_path / "store", tmp_path / f"files{number}")
    local_store.point(tmp_path / "store", "tiny", 1)
    return tmp_path / "store" / "tiny"


def _write(folder: Path, *changes: tuple[int, int]) -> None:
    lines = [PointerChange(version=version, since_ms=since).model_dump_json() for version, since in changes]
    (folder / HISTORY_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_publications_and_roll_backs_are_noted_in_order(folder: Path) -> None:
    changes = pointer_changes(folder)
    assert [change.version for change in changes] == [1, 2, 1]
    assert changes == sorted(changes, key=lambda change: change.since_ms)


def test_a_day_has_the_versions_that_were_current_in_it(folder: Path) -> None:
    _write(folder, (1, 1000), (2, 2000), (1, 3000))
    found = [(part.version, part.begin_ms, part.end_ms) for part in served_between(folder, 500, 2500)]
    assert found == [(1, 1000, 2000), (2, 2000, 2500)]
    assert [part.version for part in served_between(folder, 3500, 4000)] == [1]
    assert served_between(folder, 0, 900) == []


def test_pointing_again_to_the_same_version_is_one_stretch(folder: Path) -> None:
    _write(folder, (1, 1000), (1, 2000))
    (only,) = served_between(folder, 0, 3000)
    assert (only.begin_ms, only.end_ms) == (1000, 3000)


def test_a_store_without_a_history_is_read_from_its_manifests_and_pointer(folder: Path) -> None:
    (folder / HISTORY_FILE).unlink()
    os.utime(folder / "current", (4e9, 4e9))
    assert [change.version for change in pointer_changes(folder)] == [1, 2, 1]
    # Both were published within the second that manifests tell.
    assert [part.version for part in served_between(folder, 0, FAR)][-2:] == [2, 1]


def test_a_damaged_history_is_named(folder: Path) -> None:
    (folder / HISTORY_FILE).write_text("{\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"current\.history cannot be read"):
        pointer_changes(folder)
