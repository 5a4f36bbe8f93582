"""Files behind a URL, through fsspec; whatever its filesystems raise becomes one of our errors."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from contract.errors import ConfigError, UnavailableError


class RemoteFiles:
    """Reads and writes below a URL; names are relative to it."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is read yet.

        Raises:
            ConfigError: a protocol that no installed package speaks.
        """
        try:
            self._files: Any
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            message = f"the store {url!r}: {error}; install the fsspec package for it, or give a directory"
            raise ConfigError(message) from error
        self._url = url

    def __str__(self) -> str:
        return self._url

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is none.
            UnavailableError: the store cannot be read.
        """
        with self._doing("read", name):
            content: bytes = self._files.cat_file(self._path(name))
        return content

    def fetch(self, name: str, local: Path) -> None:
        """Download a file.

        Raises:
            FileNotFoundError: there is none.
            UnavailableError: the store cannot be read.
        """
        with self._doing("read", name):
            self._files.get_file(self._path(name), str(local))

    def listed(self, folder: str) -> list[str]:
        """Names in a folder; none if it does not exist.

        Raises:
            UnavailableError: the store cannot be read.
        """
        path = self._path(folder)
        try:
            with self._doing("read", folder):
                self._files.invalidate_cache(path)
                return [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in self._files.ls(path, detail=False)]
        except FileNotFoundError:
            return []

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file; object stores show it at once or not at all.

        Raises:
            UnavailableError: the store does not take it.
        """
        with self._doing("written", name):
            self._files.makedirs(self._path(name).rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(self._path(name), content)

    def upload(self, local: Path, name: str) -> None:
        """Copy a local file there.

        Raises:
            UnavailableError: the store does not take it.
        """
        with self._doing("written", name):
            self._files.makedirs(self._path(name).rsplit("/", 1)[0], exist_ok=True)
            self._files.put_file(str(local), self._path(name))

    def remove(self, name: str) -> None:
        """Delete a file, or a folder with all that it holds; nothing happens if there is none.

        Raises:
            UnavailableError: the store does not let it go.
        """
        with suppress(FileNotFoundError), self._doing("written", name):
            self._files.rm(self._path(name), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    @contextmanager
    def _doing(self, way: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # every filesystem has exceptions of its own
            message = f"the store {self._url} cannot be {way} at {name or 'its root'}: {error}"
            raise UnavailableError(message) from error
