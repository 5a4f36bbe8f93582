"""Writing that leaves either the whole result or nothing."""

from pathlib import Path

import pytest

from contract.files import place, replacing, write_text


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    for name in ("first", "second"):
        with replacing(target) as fresh:
            (fresh / name).write_text(name)
            assert not (target / name).exists()
    assert [path.name for path in target.iterdir()] == ["second"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_what_fails_leaves_the_old_directory(tmp_path: Path) -> None:
    with replacing(tmp_path / "out") as fresh:
        (fresh / "old").touch()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def _interrupted(target: Path) -> None:
    with replacing(target) as fresh:
        (fresh / "half").touch()
        raise KeyboardInterrupt


def test_a_file_is_placed_in_a_new_directory(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    place(tmp_path / "source", tmp_path / "new" / "target")
    assert (tmp_path / "new" / "target").read_bytes() == b"x"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]


def test_text_is_utf_8_and_replaces_what_was_there(tmp_path: Path) -> None:
    for text in ("old and longer", "é"):
        write_text(text, tmp_path / "text")
    assert (tmp_path / "text").read_bytes() == "é".encode()
    assert len(list(tmp_path.iterdir())) == 1
