"""Paths that are URLs: the fsspec filesystem behind them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec

from contract.errors import ConfigError

LOCAL = ("file", "local")
_VERSIONS = ("size", "mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "created")
"""What filesystems call a file's size and what changes with its content."""


def filesystem_of(path: str) -> Any:
    """The fsspec filesystem of a URL; None for a local path.

    Raises:
        ConfigError: a protocol that no installed package speaks.
    """
    protocol, separator, _ = path.partition("://")
    if not separator or protocol in LOCAL:
        return None
    try:
        return fsspec.filesystem(protocol)
    except (ValueError, ImportError) as error:
        message = f"{path!r}: {error}; install the fsspec package for {protocol}:// or copy the files here"
        raise ConfigError(message) from error


def without_protocol(path: str) -> str:
    """A local path that may be written as a URL, as a path."""
    protocol, separator, rest = path.partition("://")
    return rest if separator and protocol in LOCAL else path


def file_facts(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Each file or URL with its size and version: what tells changed data without reading it."""
    facts = []
    for path in paths:
        filesystem = filesystem_of(path)
        if filesystem is None:
            status = Path(without_protocol(path)).stat()
            facts.append((path, f"{status.st_size} {status.st_mtime_ns}"))
            continue
        info = filesystem.info(path)
        facts.append((path, " ".join(str(info[name]) for name in _VERSIONS if info.get(name) is not None)))
    return facts


def find_remote(filesystem: Any, path: str, endings: tuple[str, ...]) -> list[str]:
    """The files below a URL that end so, or those that match it, each as a URL."""
    paths = filesystem.find(path) if filesystem.isdir(path) else filesystem.glob(path)
    return sorted(filesystem.unstrip_protocol(file) for file in paths if str(file).endswith(endings))
