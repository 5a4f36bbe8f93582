"""The store's pointer, versions and sweeping."""

from pathlib import Path

import pytest

from contract.errors import ConfigError, IntegrityError, ModelNotFoundError
from serving.store import local_store
from tests.tiny_bundle import publish_tiny


def make(folder: Path, *versions: int) -> Path:
    for version in versions:
        (folder / "m" / str(version)).mkdir(parents=True)
    return folder


def test_the_pointer_can_be_moved_back(tmp_path: Path) -> None:
    make(tmp_path, 1, 2)
    local_store.point(tmp_path, "m", 2)
    local_store.point(tmp_path, "m", 1)
    assert local_store.current(tmp_path, "m") == 1
    assert local_store.models(tmp_path) == ["m"]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    make(tmp_path, 10, 9, 1)
    (tmp_path / "m" / "junk").mkdir()
    (tmp_path / "m" / "007").mkdir()
    assert local_store.versions(tmp_path, "m") == [1, 9, 10]
    assert local_store.versions(tmp_path, "absent") == []


def test_pointing_at_an_absent_version_says_which_there_are(tmp_path: Path) -> None:
    make(tmp_path, 1, 2)
    with pytest.raises(ModelNotFoundError, match=r"no version 3 of 'm' \(it has: 1, 2\)"):
        local_store.point(tmp_path, "m", 3)


def test_a_model_without_pointer_is_not_found(tmp_path: Path) -> None:
    make(tmp_path, 1)
    assert local_store.models(tmp_path) == []
    with pytest.raises(ModelNotFoundError, match="no current version"):
        local_store.current(tmp_path, "m")


def test_a_store_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model store at"):
        local_store.models(tmp_path / "absent")


@pytest.mark.parametrize("text", [b"", b"1", b"one\n", b"../2\n", b"1\n2\n", b"-1\n", b"01\n"])
def test_a_pointer_that_is_no_version_is_refused(tmp_path: Path, text: bytes) -> None:
    make(tmp_path, 1)
    (tmp_path / "m" / "current").write_bytes(text)
    with pytest.raises(IntegrityError, match="instead of a version number"):
        local_store.current(tmp_path, "m")


def test_what_dead_publishers_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "store" / "tiny" / ".tmp-7"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    (tmp_path / "store" / "tiny" / ".tmp-current").write_bytes(b"1")
    assert publish_tiny(tmp_path / "store", tmp_path / "work").name == "1"
    assert sorted(path.name for path in (tmp_path / "store" / "tiny").iterdir()) == [
        ".lock",
        "1",
        "current",
        "current.history",
    ]


def test_a_version_that_is_not_current_can_be_taken_away(tmp_path: Path) -> None:
    make(tmp_path, 1, 2)
    local_store.point(tmp_path, "m", 2)
    with pytest.raises(ConfigError, match="point to another first"):
        local_store.remove(tmp_path, "m", 2)
    local_store.remove(tmp_path, "m", 1)
    assert local_store.versions(tmp_path, "m") == [2]
    assert not list((tmp_path / "m").glob(".tmp-*"))
    with pytest.raises(ModelNotFoundError):
        local_store.remove(tmp_path, "m", 1)


def test_the_number_of_a_removed_version_is_never_given_again(tmp_path: Path) -> None:
    publish_tiny(tmp_path, tmp_path / "one", model="m")
    publish_tiny(tmp_path, tmp_path / "two", model="m")
    local_store.point(tmp_path, "m", 1)
    local_store.remove(tmp_path, "m", 2)
    assert publish_tiny(tmp_path, tmp_path / "three", model="m").name == "3"
    local_store.remove(tmp_path, "m", 1)
    assert publish_tiny(tmp_path, tmp_path / "four", model="m").name == "4"
