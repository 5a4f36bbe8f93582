"""Stores behind URLs, as operators change them: copy a version there, point to one, take one away.

A version's manifest goes up last but the pointer, so that a copy which was cut short is not a version, and `current`
names only what is there whole. One publisher at a time: object stores have no locks.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from contract.errors import ConfigError, ModelNotFoundError
from serving.store import bundle as bundles
from serving.store import local_store as stores
from serving.store.file_delta import RowSpan
from serving.store.manifest import MANIFEST_FILE
from serving.store.model_source import Remote, default_cache
from serving.store.remote_files import RemoteFiles
from serving.store.version_delta import DELTA_FILE, SpansOf, VersionDelta, prepare_delta

MOST_DELTAS = 7
"""How many deltas a server without any version has to fetch at most."""


class Shipment(NamedTuple):
    """A version that was pushed: as a delta against `base`, or whole for the `reason`; in bytes."""

    version: int
    base: int | None
    shipped: int
    whole: int
    reason: str

    def __str__(self) -> str:
        """One line."""
        sizes = f"{self.shipped:,} of {self.whole:,} bytes"
        if self.base is None:
            return f"version {self.version} whole ({self.reason}): {sizes}"
        share = self.shipped / max(self.whole, 1)
        return f"version {self.version} as a delta against version {self.base}: {sizes} ({share:.1%})"


def blocks(_: Path) -> dict[str, list[RowSpan]]:
    """For a bundle whose tables are unknown, all files are compared in blocks."""
    return {}


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

        What was cut short is begun again; what is there already is only pointed to.

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
        if not self._is_there(bundle):
            self._upload(bundle, {name: bundle.path / name for name in bundle.manifest.files}, None)
        self.point(model, chosen)
        return chosen

    def push_delta(
        self, store: Path, model: str, version: int | None = None, base: int | None = None, spans_of: SpansOf = blocks
    ) -> Shipment:
        """As `push`, but ship only what changed since version `base` (None: the current one there).

        Where there is no version yet, or the base already stands on `MOST_DELTAS` others, the whole version goes.

        Raises:
            ModelNotFoundError: one of the two stores has no such base.
            ConfigError: the base here is another than the one there, or is not an earlier version.
            IntegrityError, UnavailableError: as `push`.
        """
        chosen = version or stores.current(store, model)
        target = bundles.load(stores.version_path(store, model, chosen))
        whole = sum(entry.size for entry in target.manifest.files.values())
        if self._is_there(target):
            self.point(model, chosen)
            return Shipment(chosen, None, 0, whole, "it is there already")
        if base is None and not self._source.versions(model):
            self.push(store, model, chosen)
            return Shipment(chosen, None, whole, whole, "the first version there")
        named = base or self._source.current(model)
        self._require(model, named)
        if self._deltas_below(model, named) >= MOST_DELTAS:
            self.push(store, model, chosen)
            return Shipment(chosen, None, whole, whole, f"version {named} stands on {MOST_DELTAS} deltas")
        before = self._base(store, model, named, chosen)
        with tempfile.TemporaryDirectory(prefix="moerank-delta-") as work:
            prepared = prepare_delta(before, target, spans_of, Path(work))
            self._upload(target, prepared.files, prepared.about)
        self.point(model, chosen)
        return Shipment(chosen, named, prepared.shipped, prepared.whole, "")

    def _base(self, store: Path, model: str, named: int, chosen: int) -> bundles.Bundle:
        if named >= chosen:
            message = f"version {chosen} of {model} cannot be a delta against version {named}: name an earlier one"
            raise ConfigError(message)
        before = bundles.load(stores.version_path(store, model, named))
        if (before.path / MANIFEST_FILE).read_bytes() != self._manifest(model, named):
            message = (
                f"version {named} of {model} in {self._files} is another one than in {store}, so a delta against it "
                "would make nonsense: push the version whole, or against a base that both have"
            )
            raise ConfigError(message)
        return before

    def _deltas_below(self, model: str, version: int) -> int:
        """How many deltas must be applied to have a version."""
        delta = self._source.delta_of(model, version)
        return 0 if delta is None else 1 + self._deltas_below(model, delta.base)

    def _is_there(self, bundle: bundles.Bundle) -> bool:
        """Whether the version is there.

        Raises:
            ConfigError: another one of its number is.
        """
        model, version = bundle.manifest.model, bundle.manifest.version
        remote = self._manifest(model, version)
        if remote is not None and remote != (bundle.path / MANIFEST_FILE).read_bytes():
            message = f"{self._files} has another version {version} of {model}; two stores publish to it: keep to one"
            raise ConfigError(message)
        return remote is not None

    def _upload(self, bundle: bundles.Bundle, files: Mapping[str, Path], delta: VersionDelta | None) -> None:
        folder = f"{bundle.manifest.model}/{bundle.manifest.version}"
        for name, path in files.items():
            self._files.upload(path, f"{folder}/{name}")
        if delta is None:
            # A push of a delta that was cut short may have left its own.
            self._files.remove(f"{folder}/{DELTA_FILE}")
        else:
            self._files.write(f"{folder}/{DELTA_FILE}", f"{delta.model_dump_json(indent=1)}\n".encode())
        self._files.write(f"{folder}/{MANIFEST_FILE}", (bundle.path / MANIFEST_FILE).read_bytes())

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
            ConfigError: it is the current one, or another is a delta against it.
            UnavailableError: the store does not answer.
        """
        self._require(model, version)
        if self._source.current(model) == version:
            raise stores.in_use(model, version)
        for other in self._source.versions(model):
            delta = self._source.delta_of(model, other)
            if delta is not None and delta.base == version:
                message = f"version {other} of {model} is a delta against version {version}; remove that one first"
                raise ConfigError(message)
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
