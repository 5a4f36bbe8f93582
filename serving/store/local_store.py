"""The model store's layout: ``STORE/MODEL/VERSION/`` and the pointer file ``STORE/MODEL/current``.

Versions are immutable and appear by one rename; the pointer is replaced by one rename. So a reader sees either the
old state or the new one, also when a publisher is killed at any moment.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract import files
from contract.errors import ConfigError, IntegrityError, ModelNotFoundError
from contract.files import TEMPORARY_PREFIX, flush, write_text
from serving.store.manifest import NAME_PATTERN
from serving.store.pointer_history import note_change

POINTER_FILE = "current"
REMOVED_FILE = ".removed"


def require_name(model: str) -> None:
    """Refuse a model name that is not a plain folder name.

    Raises:
        ConfigError: it is not made of letters, digits, dots, dashes and underscores.
    """
    if not re.fullmatch(NAME_PATTERN, model):
        message = f"{model!r} cannot name a model: use up to 64 letters, digits, dots, dashes and underscores"
        raise ConfigError(message)


def models(store: Path) -> list[str]:
    """Names of the models that have a current version, sorted.

    Raises:
        ModelNotFoundError: the store is not a directory.
    """
    if not store.is_dir():
        message = f"there is no model store at {store}; publish a model first with `moerank publish`"
        raise ModelNotFoundError(message)
    return sorted(
        entry.name
        for entry in store.iterdir()
        if re.fullmatch(NAME_PATTERN, entry.name) and (entry / POINTER_FILE).is_file()
    )


def versions(store: Path, model: str) -> list[int]:
    """The versions of a model, ascending; empty if there is no such model."""
    require_name(model)
    folder = store / model
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if is_version(name))


def is_version(name: str) -> bool:
    """Whether a folder's name is a version number."""
    return re.fullmatch(r"[1-9][0-9]{0,17}", name) is not None


def current(store: Path, model: str) -> int:
    """The version that the pointer names.

    Raises:
        ModelNotFoundError: no such model, or it has no pointer yet.
        IntegrityError: the pointer file is not a version number.
    """
    require_name(model)
    try:
        text = (store / model / POINTER_FILE).read_bytes()
    except OSError as error:
        message = f"the store {store} has no current version of a model {model!r} ({error.strerror})"
        raise ModelNotFoundError(message) from error
    return pointed(text, str(store / model))


def pointed(content: bytes, folder: str) -> int:
    """The version in the content of a pointer file.

    Raises:
        IntegrityError: it is not a version number.
    """
    if not re.fullmatch(rb"[1-9][0-9]{0,17}\n", content):
        message = f"{folder}/{POINTER_FILE} holds {content[:40]!r} instead of a version number; point it again"
        raise IntegrityError(message)
    return int(content)


def version_path(store: Path, model: str, version: int) -> Path:
    """Where a version lies.

    Raises:
        ModelNotFoundError: there is no such version; the message lists those that there are.
    """
    path = store / model / str(version)
    if not path.is_dir():
        known = ", ".join(map(str, versions(store, model))) or "none"
        message = f"the store has no version {version} of {model!r} (it has: {known})"
        raise ModelNotFoundError(message)
    return path


def point(store: Path, model: str, version: int) -> None:
    """Make a version the current one; this is how to roll back, too.

    Raises:
        ModelNotFoundError: there is no such version.
    """
    with locked(store, model):
        replace_pointer(store, model, version)


def remove(store: Path, model: str, version: int) -> None:
    """Take a version away; servers that have it loaded go on with it.

    Raises:
        ModelNotFoundError: there is no such version.
        ConfigError: it is the current one.
    """
    with locked(store, model) as folder:
        path = version_path(store, model, version)
        if (folder / POINTER_FILE).exists() and current(store, model) == version:
            raise in_use(model, version)
        doomed = folder / f"{TEMPORARY_PREFIX}removed-{version}"
        # First, so that the number is never given again: caches elsewhere would take the new bundle for the old one.
        write_text(f"{max(version, _highest_removed(folder))}\n", folder / REMOVED_FILE)
        path.rename(doomed)
        flush(folder)
        shutil.rmtree(doomed)


def in_use(model: str, version: int) -> ConfigError:
    """The refusal to take away what is served."""
    message = f"version {version} of {model} is the current one; point to another first, with `moerank point`"
    return ConfigError(message)


def replace_pointer(store: Path, model: str, version: int) -> None:
    """As `point`, for a caller that holds the lock."""
    version_path(store, model, version)
    write_text(f"{version}\n", store / model / POINTER_FILE)
    note_change(store / model, version)


def next_version(store: Path, model: str) -> int:
    """The number of the next publication, for a caller that holds the lock; no number is given twice."""
    return max([*versions(store, model), _highest_removed(store / model)]) + 1


def _highest_removed(folder: Path) -> int:
    path = folder / REMOVED_FILE
    return pointed(path.read_bytes(), str(folder)) if path.exists() else 0


def _replace(folder: Path, name: str, version: int) -> None:
    write_text(f"{version}\n", folder / name)


@contextmanager
def locked(store: Path, model: str) -> Iterator[Path]:
    """Hold the model's lock (released by the kernel if the holder dies) and sweep what dead publishers left behind."""
    require_name(model)
    folder = store / model
    with files.locked(folder):
        _sweep(folder)
        yield folder


def _sweep(folder: Path) -> None:
    """Delete temporary files and directories; the caller holds the lock, so none of them is in use."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
