"""Where a server finds bundles: a directory, or a URL of any filesystem that fsspec speaks.

Of a URL, bundles are downloaded beside a cache, verified there, and only then renamed into it and loaded. Of a version
that is a delta, only what changed is downloaded; the rest is copied from its base, which is fetched first if it is not
in the cache.
"""

import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from contract.errors import IntegrityError, ModelNotFoundError, MoerankError
from contract.files import TEMPORARY_PREFIX
from contract.sha256 import sha256_of_bytes
from serving.store import bundle as bundles
from serving.store import local_store as stores
from serving.store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, NAME_PATTERN, Manifest
from serving.store.remote_files import RemoteFiles
from serving.store.version_delta import DELTA_FILE, DELTA_SUFFIX, VersionDelta, build_file

RETRY_SECONDS = 60.0
"""How long a version that could not be downloaded or verified is left alone."""
KEPT = 3
"""Downloaded versions of a model that stay in the cache."""


class _MadeFrom(NamedTuple):
    """What a version changes, and its base in the cache."""

    delta: VersionDelta
    base: Path


class Source(Protocol):
    """What a registry asks of a store; the errors are those of `serving.store.local_store`."""

    def models(self) -> list[str]:
        """Names of the models that have a current version, sorted."""

    def versions(self, model: str) -> list[int]:
        """The versions of a model, ascending."""

    def current(self, model: str) -> int:
        """The version that the pointer names."""

    def version_path(self, model: str, version: int) -> Path:
        """The directory of a version on this machine."""


def open_source(store: str | Path, cache: Path | None = None) -> Source:
    """The store behind a path or a URL.

    Raises:
        ConfigError: a URL whose protocol no installed package speaks.
    """
    text = str(store)
    if isinstance(store, Path) or "://" not in text:
        return Directory(Path(store), cache)
    if text.startswith("file://"):
        return Directory(Path(text.removeprefix("file://")), cache)
    return Remote(text, cache or default_cache(text))


def default_cache(url: str) -> Path:
    """A folder of the user's own, one a URL."""
    return Path.home() / ".cache" / "moerank" / sha256_of_bytes(url.encode())[:16]


class Directory:
    """A local store. Versions that were shipped there as deltas are made in a cache, as those behind a URL."""

    def __init__(self, path: Path, cache: Path | None = None) -> None:
        """Prepare; nothing is read yet."""
        self._path, self._cache = path, cache
        self._remote: Remote | None = None

    def __str__(self) -> str:
        return str(self._path)

    def models(self) -> list[str]:
        """As `Source.models`."""
        return stores.models(self._path)

    def versions(self, model: str) -> list[int]:
        """As `Source.versions`."""
        return stores.versions(self._path, model)

    def current(self, model: str) -> int:
        """As `Source.current`."""
        return stores.current(self._path, model)

    def version_path(self, model: str, version: int) -> Path:
        """As `Source.version_path`; of a delta, as `Remote.version_path`."""
        path = stores.version_path(self._path, model, version)
        if not (path / DELTA_FILE).is_file():
            return path
        if self._remote is None:
            url = f"file://{self._path.absolute()}"
            self._remote = Remote(url, self._cache or default_cache(url))
        return self._remote.version_path(model, version)


class Remote:
    """A store behind a URL, with a cache of verified bundles that several servers may share."""

    def __init__(self, url: str, cache: Path) -> None:
        """Prepare; nothing is read yet.

        Raises:
            ConfigError: a protocol that no installed package speaks.
        """
        self._files = RemoteFiles(url)
        self._url, self._cache = url, cache
        self._failed: dict[tuple[str, int], tuple[float, MoerankError]] = {}

    def __str__(self) -> str:
        return self._url

    def models(self) -> list[str]:
        """As `Source.models`.

        Raises:
            UnavailableError: the store cannot be read.
        """
        names = [name for name in self._files.listed("") if re.fullmatch(NAME_PATTERN, name)]
        return sorted(name for name in names if stores.POINTER_FILE in self._files.listed(name))

    def versions(self, model: str) -> list[int]:
        """As `Source.versions`.

        Raises:
            UnavailableError: the store cannot be read.
        """
        stores.require_name(model)
        names = [name for name in self._files.listed(model) if stores.is_version(name)]
        # The manifest goes up last: without it, a copy was cut short.
        return sorted(int(name) for name in names if MANIFEST_FILE in self._files.listed(f"{model}/{name}"))

    def current(self, model: str) -> int:
        """As `Source.current`.

        Raises:
            ModelNotFoundError: no such model, or it has no pointer yet.
            UnavailableError: the store cannot be read.
            IntegrityError: the pointer is not a version number.
        """
        stores.require_name(model)
        return stores.pointed(self._read(f"{model}/{stores.POINTER_FILE}", model), f"{self._url}/{model}")

    def version_path(self, model: str, version: int) -> Path:
        """The verified copy in the cache, downloaded if it is not there yet.

        Raises:
            ModelNotFoundError: there is no such version.
            UnavailableError: the store cannot be read.
            IntegrityError: what was downloaded is not what its manifest promises.
        """
        target = self._cache / model / str(version)
        if target.is_dir():
            return target
        since, error = self._failed.get((model, version), (float("-inf"), None))
        if error is not None and time.monotonic() - since < RETRY_SECONDS:
            # Nobody wants gigabytes again every second.
            raise error
        try:
            delta = self.delta_of(model, version)
            # Before the lock, which is not taken twice.
            made_from = None if delta is None else _MadeFrom(delta, self.version_path(model, delta.base))
            with stores.locked(self._cache, model) as folder:
                if not target.is_dir():
                    beside = folder / f"{TEMPORARY_PREFIX}{version}"
                    self._download(model, version, beside, target, made_from)
                _prune(folder, target)
        except MoerankError as refusal:
            self._failed[model, version] = (time.monotonic(), refusal)
            raise
        self._failed.pop((model, version), None)
        return target

    def delta_of(self, model: str, version: int) -> VersionDelta | None:
        """What a version says of its base; None for one that is there whole.

        Raises:
            UnavailableError: the store cannot be read.
            IntegrityError: the description is damaged.
        """
        name = f"{model}/{version}/{DELTA_FILE}"
        try:
            delta = VersionDelta.parse(self._files.read(name), f"{self._url}/{name}")
        except FileNotFoundError:
            return None
        if (delta.model, delta.version) != (model, version) or delta.base >= version:
            message = (
                f"{self._url}/{name} is that of version {delta.version} of {delta.model}; push version {version} again"
            )
            raise IntegrityError(message)
        return delta

    def _download(
        self, model: str, version: int, beside: Path, target: Path, made_from: _MadeFrom | None = None
    ) -> None:
        beside.mkdir()
        try:
            content = self._read(f"{model}/{version}/{MANIFEST_FILE}", model)
            if len(content) > MAX_MANIFEST_BYTES:
                message = f"the manifest of {self._url}/{model}/{version} is larger than {MAX_MANIFEST_BYTES} bytes"
                raise IntegrityError(message)
            (beside / MANIFEST_FILE).write_bytes(content)
            if made_from is not None:
                made_from.delta.require_base(Manifest.load(made_from.base))
            for name, entry in Manifest.load(beside).files.items():
                local = beside / name
                local.parent.mkdir(parents=True, exist_ok=True)
                change = None if made_from is None else made_from.delta.changes.get(name)
                if made_from is None or change is None:
                    self._fetch(f"{model}/{version}/{name}", local)
                    continue
                patch = local.with_name(f"{local.name}{DELTA_SUFFIX}") if change.delta else None
                if patch is not None:
                    self._fetch(f"{model}/{version}/{name}{DELTA_SUFFIX}", patch)
                build_file(change, entry, made_from.base / name, patch, local)
                if patch is not None:
                    patch.unlink()
            bundles.load(beside)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _fetch(self, name: str, local: Path) -> None:
        try:
            self._files.fetch(name, local)
        except FileNotFoundError as error:
            message = f"{self._url} lacks {name}, which the manifest lists"
            raise IntegrityError(message) from error

    def _read(self, name: str, model: str) -> bytes:
        try:
            return self._files.read(name)
        except FileNotFoundError as error:
            message = f"the store {self._url} has no {name}, so nothing of the model {model!r} can be served"
            raise ModelNotFoundError(message) from error


def _prune(folder: Path, newest: Path) -> None:
    """Delete the versions of a model that were downloaded longest ago; files in use live on until they are closed."""
    versions = [path for path in folder.iterdir() if stores.is_version(path.name) and path != newest]
    for path in sorted(versions, key=lambda path: path.stat().st_mtime)[: -(KEPT - 1)]:
        shutil.rmtree(path, ignore_errors=True)
