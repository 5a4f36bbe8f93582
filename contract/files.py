"""Files and directories that appear whole or not at all, and locks that end with the process that holds them.

Everything is written beside its place under a name that begins with `TEMPORARY_PREFIX`, forced to the disk, then
renamed.
"""

import errno
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from contract.errors import ConfigError

LOCK_FILE = ".lock"
TEMPORARY_PREFIX = ".tmp-"
_OLD = "old"
_FLUSHING_THREADS = 8
_NUMBERS = itertools.count()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name a path in errors that do not, such as that of a write for which there is no room."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def told(error: OSError) -> str:
    """An error of the system in a line: the file, and the system's own words, which say it best.

    Of a copy for which there is no room, Python names the source first; the room is where the copy was to be.
    """
    file = (error.filename2 if error.errno == errno.ENOSPC else None) or error.filename or "the system"
    return f"{file}: {error.strerror or error}"


@contextmanager
def appearing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes its name, on the disk, when the block ends without an error.

    What no later process reads need not be `durable`: it may stay in memory.

    Raises:
        OSError: nothing can be written there; it names a path.
    """
    partial = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.{os.getpid()}.{next(_NUMBERS)}")
    try:
        with _naming(path):
            yield partial
            if durable:
                flush(partial)
            partial.replace(path)
            if durable:
                flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write a text file in UTF-8 in one step."""
    with appearing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def place(source: Path, target: Path) -> None:
    """Copy a finished file of any file system to `target` in one step, so that no reader ever sees a part of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with appearing(target) as partial:
        shutil.copy(source, partial)


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `directory` when the block ends without an exception.

    Raises:
        OSError: the parent cannot be written.
    """
    with scratch_beside(directory) as scratch:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        flush_tree(fresh)
        if directory.exists():
            # A directory that is not empty cannot be renamed over, so the old one steps aside first.
            directory.rename(scratch / _OLD)
        fresh.rename(directory)
        flush(directory.parent)


@contextmanager
def scratch_beside(directory: Path) -> Iterator[Path]:
    """Yield a directory for temporary files, on the file system of `directory`; `recover` removes it after a kill."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=_scratch_prefix(directory)) as scratch:
        yield Path(scratch)


def recover(directory: Path) -> None:
    """Clear away what a process left that was killed inside `replacing` or `scratch_beside`.

    If it was killed between the two renames, the old directory returns to its place. Call it only where no other
    process can be replacing `directory`, such as inside `exclusive`.
    """
    for scratch in directory.parent.glob(f"{glob.escape(_scratch_prefix(directory))}*"):
        if (scratch / _OLD).is_dir() and not directory.exists():
            (scratch / _OLD).rename(directory)
        shutil.rmtree(scratch, ignore_errors=True)


def _scratch_prefix(directory: Path) -> str:
    return f"{TEMPORARY_PREFIX}{directory.name}-"


def flush(path: Path) -> None:
    """Force a file's content, or a directory's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(directory: Path) -> None:
    """Force a directory and all below it to the disk: contents before the entries that name them."""
    directories, files = [directory], list[Path]()
    for path in directory.rglob("*"):
        (directories if path.is_dir() else files).append(path)
    # The kernel writes what several threads ask for at once in one go: 60 files take a fifth of the time.
    with ThreadPoolExecutor(_FLUSHING_THREADS) as threads:
        list(threads.map(flush, files))
    for path in sorted(directories, reverse=True):
        flush(path)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold a directory for this process, or refuse at once; the kernel ends the lock with the process.

    Raises:
        ConfigError: another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / LOCK_FILE
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        holder = file.read_text(encoding="utf-8").strip() or "(unknown)"
        message = f"process {holder} is at work in {directory}; wait until it has ended"
        raise ConfigError(message) from error
    try:
        with _naming(file):
            file.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        lock.release()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """As `exclusive`, but wait for the other process to end its work."""
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / LOCK_FILE):
        yield
