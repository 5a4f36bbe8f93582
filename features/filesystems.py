"""Paths that are URLs: the fsspec filesystem behind them."""

from typing import Any

import fsspec

from features.errors import ConfigError


def filesystem_of(path: str) -> Any:
    """The fsspec filesystem of a URL; None for a local path.

    Raises:
        ConfigError: a protocol that no installed package speaks.
    """
    protocol, separator, _ = path.partition("://")
    if not separator or protocol == "file":
        return None
    try:
        return fsspec.filesystem(protocol)
    except (ValueError, ImportError) as error:
        message = f"{path!r}: {error}; install the fsspec package for {protocol}:// or copy the files here"
        raise ConfigError(message) from error


def find_remote(filesystem: Any, path: str) -> list[str]:
    """The Parquet files below or matching a URL, each as a URL."""
    found = filesystem.find(path) if filesystem.isdir(path) else filesystem.glob(path)
    return sorted(filesystem.unstrip_protocol(file) for file in found if str(file).endswith(".parquet"))
