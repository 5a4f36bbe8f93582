"""Writing that leaves either the whole result or nothing."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contract.files import TEMPORARY_PREFIX, locked, place, recover, replacing, scratch_beside, told, write_text
from tests.patience import PATIENCE


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


def test_recovery_brings_back_what_stepped_aside_and_clears_scratch_directories(tmp_path: Path) -> None:
    code = "import os, sys, pathlib\nfrom contract import files\ntarget = pathlib.Path(sys.argv[1])\n"
    code += "with files.replacing(target) as fresh: (fresh / 'first').touch()\n"
    code += "rename = pathlib.Path.rename\n"
    code += "def renamed(path, to):\n    rename(path, to)\n    if to.name == 'old': os.kill(os.getpid(), 9)\n"
    code += "pathlib.Path.rename = renamed\n"
    code += "with files.scratch_beside(target), files.replacing(target) as fresh: (fresh / 'second').touch()\n"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert not (tmp_path / "out").exists()
    recover(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "first"]


def test_recovery_leaves_the_scratch_of_another_directory(tmp_path: Path) -> None:
    with scratch_beside(tmp_path / "other"):
        recover(tmp_path / "out")
        assert len(list(tmp_path.iterdir())) == 1


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


def test_a_lock_waits_for_its_holder_to_end(tmp_path: Path) -> None:
    code = "import sys, pathlib\nfrom contract.files import locked\nwith locked(pathlib.Path(sys.argv[1])): print('in')"
    with locked(tmp_path):
        waiting = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    assert waiting.communicate(timeout=PATIENCE)[0] == "in\n"


def test_what_a_killed_writer_leaves_bears_the_name_of_temporary_files(tmp_path: Path) -> None:
    code = "import os, sys, pathlib\nfrom contract.files import appearing\n"
    code += "with appearing(pathlib.Path(sys.argv[1])) as half: half.touch(); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    assert [path.name.startswith(TEMPORARY_PREFIX) for path in tmp_path.iterdir()] == [True]


def test_a_disk_without_room_is_told_with_the_file(small_disk: Path) -> None:
    target = small_disk / "history.json"
    with pytest.raises(OSError, match="No space left on device") as refused:
        write_text("x" * 300_000, target)
    assert refused.value.filename == str(target)
    assert list(small_disk.iterdir()) == []


def test_a_copy_without_room_is_told_with_the_copy(small_disk: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "graph", small_disk / "graph"
    source.write_bytes(bytes(300_000))
    with pytest.raises(OSError, match="No space left on device") as refused:
        shutil.copyfile(source, target)
    assert told(refused.value) == f"{target}: No space left on device"
