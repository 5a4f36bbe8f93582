"""Stores behind URLs, as operators change them: copy a version there, point to one, take one away.

A version's manifest goes up last but the pointer, so that a copy which was cut short is no version, and `current` names
only what is there whole. One publisher at a time: object stores have no locks.
"""

from pathlib import Path

from contract.errors import ConfigError, ModelNotFoundError
from serving.store import bundle as bundles
from serving.store import local_store as stores
from serving.store.manifest import MANIFEST_FILE
from serving.store.model_source import Remote, default_cache
from serving.store.remote_files import RemoteFiles


class RemoteStore:
    """A store behind a URL."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is read yet.

        Raises:
            ConfigError: a protocol that no installed package speaks.
        """
        self._files = RemoteFiles(url)
        self._source = Remote(url, default_cache(url))

    def push(self, store: Path, model: str, version: int | None = None) -> int:
        """Copy a version (None: the current one) of a local store, under the same number, and make it current.

        What was cut short is begun anew; what is there already is only pointed to.

        Returns:
            The version.

        Raises:
            ModelNotFoundError: the local store has no such version.
            IntegrityError: the local version is damaged.
            ConfigError: another bundle has this number there.
            UnavailableError: the store behind the URL does not take it.
        """
        chosen = version or stores.current(store, model)
        bundle = bundles.load(stores.version_path(store, model, chosen))
        folder, manifest = f"{model}/{chosen}", (bundle.path / MANIFEST_FILE).read_bytes()
        found = self._manifest(model, chosen)
        if found is None:
            for name in bundle.manifest.files:
                self._files.upload(bundle.path / name, f"{folder}/{name}")
            self._files.write(f"{folder}/{MANIFEST_FILE}", manifest)
        elif found != manifest:
            message = f"{self._files} has another version {chosen} of {model}; two stores publish to it: keep to one"
            raise ConfigError(message)
        self.point(model, chosen)
        return chosen

    def point(self, model: str, version: int) -> None:
        """Make a version the current one.

        Raises:
            ModelNotFoundError: there is no such version, or only a part of it.
            UnavailableError: the store does not answer.
        """
        self._require(model, version)
        self._files.write(f"{model}/{stores.POINTER_FILE}", f"{version}\n".encode())

    def remove(self, model: str, version: int) -> None:
        """Take a version away; its manifest first, so that nobody sees half of it as whole.

        Raises:
            ModelNotFoundError: there is no such version.
            ConfigError: it is the current one.
            UnavailableError: the store does not answer.
        """
        self._require(model, version)
        if self._source.current(model) == version:
            raise stores.in_use(model, version)
        self._files.remove(f"{model}/{version}/{MANIFEST_FILE}")
        self._files.remove(f"{model}/{version}")

    def _manifest(self, model: str, version: int) -> bytes | None:
        try:
            return self._files.read(f"{model}/{version}/{MANIFEST_FILE}")
        except FileNotFoundError:
            return None

    def _require(self, model: str, version: int) -> None:
        stores.require_name(model)
        if self._manifest(model, version) is None:
            known = ", ".join(map(str, self._source.versions(model))) or "none"
            message = f"the store {self._files} has no version {version} of {model!r} (it has: {known})"
            raise ModelNotFoundError(message)
