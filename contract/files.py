"""Files and directories that appear whole or not at all, and directories that one process at a time works in."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import ConfigError


@contextmanager
def appearing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its name, on the disk, when the block ends without an error.

    What no later process reads need not be `durable`: it may stay in memory.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold a directory for this process; the lock ends with the process, however that ends.

    Raises:
        ConfigError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            message = f"process {lock.read().strip() or '(unknown)'} is at work in {directory}; wait until it has ended"
            raise ConfigError(message) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `directory` when the block ends without an exception.

    Raises:
        OSError: the parent cannot be written.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        yield fresh
        for path in fresh.rglob("*"):
            _flush(path)
        if directory.exists():
            # A directory that is not empty cannot be renamed over, so the old one steps aside first.
            directory.rename(Path(scratch) / "old")
        fresh.rename(directory)
        _flush(directory.parent)


def place(source: Path, target: Path) -> None:
    """Move a finished file of any file system to `target` in one step, so that no reader ever sees a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        copy = Path(shutil.copy(source, scratch))
        _flush(copy)
        copy.replace(target)
    _flush(target.parent)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8 in one step."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        fresh = Path(scratch) / path.name
        fresh.write_text(text, encoding="utf-8")
        _flush(fresh)
        fresh.replace(path)


def _flush(path: Path) -> None:
    """Force a file's or a directory's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
