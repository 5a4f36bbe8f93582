"""Bundles: publish one atomically, and load one only if every byte is what its manifest promises."""

import os
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contract.errors import ConfigError, DataError, IntegrityError
from contract.files import TEMPORARY_PREFIX, flush, flush_tree
from contract.graph_names import MODEL_FILE
from contract.schema import SCHEMA_FILE, Schema
from contract.settings import problems_of
from contract.sha256 import sha256_of
from serving.store.local_store import locked, next_version, replace_pointer
from serving.store.manifest import MANIFEST_FILE, Facts, FileEntry, Manifest, require_safe

REQUIRED_FILES = (MODEL_FILE, SCHEMA_FILE)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been verified."""

    path: Path
    manifest: Manifest
    schema: Schema

    @property
    def name(self) -> str:
        """Model and version for messages."""
        return f"{self.manifest.model}/{self.manifest.version}"


def publish(store: Path, model: str, files: Mapping[str, Path], manifest: Mapping[str, Any]) -> Path:
    """Copy files into a new version of a model and make it current.

    Args:
        store: The store's root; made if absent.
        model: The model's name.
        files: Source of each file by its path inside the bundle (``model.onnx``, ``online/items.bin``).
        manifest: The fields of `serving.store.manifest.Facts`.

    Returns:
        ``STORE/MODEL/VERSION``.

    Raises:
        ConfigError: a name or the manifest is not valid, a required file is missing, or the version's place is taken.
        OSError: the disk is full or not writable; the store stays as it was.
        DataError: a source file does not exist.
        SchemaMismatchError: the manifest's fingerprint is not that of the bundle's schema.
    """
    facts = _facts(manifest)
    _check_sources(files)
    with locked(store, model) as folder:
        version = next_version(store, model)
        target, temporary = folder / str(version), folder / f"{TEMPORARY_PREFIX}{version}"
        if os.path.lexists(target):
            message = f"{target} is in the way and no version of {model}; remove it, or publish to another store"
            raise ConfigError(message)
        temporary.mkdir()
        try:
            entries = {name: _copy(source, temporary / name) for name, source in sorted(files.items())}
            Schema.load(temporary).require(facts.schema_fingerprint, f"the manifest of {model}")
            created = datetime.now(UTC).isoformat(timespec="seconds")
            stated = Manifest(**dict(facts), model=model, version=version, created=created, files=entries)
            stated.save(temporary)
            flush_tree(temporary)
            temporary.rename(target)
        except BaseException:
            # A full disk above all: what is half there only takes room. `locked` sweeps what killed publishers leave.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush(folder)
        replace_pointer(store, model, version)
    return target


def load(path: Path, held: Collection[str] = ()) -> Bundle:
    """Verify a bundle and read what describes it.

    Files whose content the caller holds already, by the sha256 `held`, are not read: it will not read them either.

    Raises:
        IntegrityError: a file is missing, altered, truncated, extra, a link, or not a regular file.
        SchemaMismatchError: its schema is not the one that its manifest names.
    """
    if path.is_symlink() or not path.is_dir():
        message = f"{path} is not a bundle directory (links are not followed)"
        raise IntegrityError(message)
    manifest = Manifest.load(path)
    _check_listing(path, manifest)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry, read=entry.sha256 not in held)
    schema = Schema.load(path)
    schema.require(manifest.schema_fingerprint, f"the bundle {manifest.model}/{manifest.version}")
    tasks = tuple(task.name for task in schema.tasks)
    if tasks != manifest.tasks:
        message = f"{path} promises the tasks {manifest.tasks}, but its schema has {tasks}"
        raise IntegrityError(message)
    return Bundle(path, manifest, schema)


def _facts(manifest: Mapping[str, Any]) -> Facts:
    try:
        return Facts.model_validate(dict(manifest))
    except ValidationError as error:
        message = f"the manifest cannot be published: {problems_of(error)}"
        raise ConfigError(message) from error


def _check_sources(files: Mapping[str, Path]) -> None:
    for required in REQUIRED_FILES:
        if required not in files:
            message = f"a bundle needs {required}; given were {', '.join(sorted(files)) or 'no files'}"
            raise ConfigError(message)
    for name, source in files.items():
        try:
            require_safe(name)
        except IntegrityError as error:
            raise ConfigError(str(error)) from error
        if name == MANIFEST_FILE or not source.is_file():
            message = f"{source} cannot become {name} of a bundle: it is not a file, or the name is taken"
            raise DataError(message)


def _copy(source: Path, target: Path) -> FileEntry:
    """Copy the content into a new file; never a link, so that nobody shares the inode."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return FileEntry(sha256=sha256_of(target), size=target.stat().st_size)


def _check_listing(path: Path, manifest: Manifest) -> None:
    """The directory holds the listed files, plain folders, and nothing else."""
    present = set()
    for entry in path.rglob("*"):
        mode = entry.lstat().st_mode
        name = entry.relative_to(path).as_posix()
        if stat.S_ISREG(mode):
            present.add(name)
        elif not stat.S_ISDIR(mode):
            message = f"{path} holds {name}, which is a link or a special file; a bundle has plain files only"
            raise IntegrityError(message)
    listed = {*manifest.files, MANIFEST_FILE}
    if present != listed:
        missing, extra = sorted(listed - present), sorted(present - listed)
        message = f"{path} does not match its manifest: missing {missing or 'none'}, not listed {extra or 'none'}"
        raise IntegrityError(message)


def _check_file(path: Path, name: str, entry: FileEntry, *, read: bool = True) -> None:
    file = path / name
    status = file.lstat()
    if status.st_nlink != 1:
        message = f"{file} is hard-linked {status.st_nlink} times, so others could change it; publish the bundle again"
        raise IntegrityError(message)
    if status.st_size != entry.size:
        message = f"{file} has {status.st_size} bytes, but its manifest promises {entry.size}"
        raise IntegrityError(message)
    if read and sha256_of(file) != entry.sha256:
        message = f"{file} does not have the sha256 that its manifest promises; it was altered or damaged"
        raise IntegrityError(message)
