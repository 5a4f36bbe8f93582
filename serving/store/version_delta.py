"""A version that is shipped as what changed since another one: ``delta.json`` beside its manifest.

The manifest is that of the whole version, byte for byte what a full copy has. ``delta.json`` names the base version and
its manifest's seal, and for each file that the base helps to make, the base file's sha256 and the delta's. A file is
made from a base whose sha256 is that one, by a delta whose sha256 is that one, and must have the manifest's.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, ValidationError

from contract.errors import IntegrityError
from contract.settings import Settings
from contract.sha256 import RunningSha256, sha256_of, sha256_of_bytes
from serving.store.bundle import Bundle
from serving.store.file_delta import FileDelta, RowSpan, apply_delta, make_delta
from serving.store.manifest import FileEntry, Manifest

_CHUNK = 2**22
DELTA_FILE, DELTA_SUFFIX = "delta.json", ".delta"
SpansOf = Callable[[Path], Mapping[str, Sequence[RowSpan]]]
"""Where a bundle's files hold rows of tables, by file name; files that it does not name are compared in blocks."""


class FileChange(Settings):
    """How a file is made from the base's of the same name; without `delta` it is the same."""

    base: str = Field(pattern=r"^[0-9a-f]{64}$")
    """The base file's sha256."""
    delta: FileEntry | None = None
    """The delta's sha256 and size."""


class VersionDelta(Settings):
    """``delta.json``."""

    format: Literal[1] = 1
    model: str
    version: int
    base: int = Field(ge=1)
    """The version that it is to be applied to."""
    base_seal: str
    """That version's seal."""
    changes: dict[str, FileChange]
    seal: str = ""
    """The sha256 of all of the above as JSON."""

    def sealed(self) -> Self:
        """The same with the seal that it must have."""
        whole = self.model_copy(update={"seal": ""}).model_dump_json()
        return self.model_copy(update={"seal": sha256_of_bytes(whole.encode())})

    @classmethod
    def parse(cls, content: bytes, where: str) -> Self:
        """Read ``delta.json``.

        Raises:
            IntegrityError: it is none of this format, or was altered.
        """
        try:
            delta = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole file"
            message = f"{where} is not a delta of a version: {place}: {first['msg']}"
            raise IntegrityError(message) from error
        if delta.sealed() != delta:
            message = f"{where} does not carry the seal of its content; it was altered or damaged"
            raise IntegrityError(message)
        return delta

    def require_base(self, base: Manifest) -> None:
        """Refuse another base than the one that the delta was made against.

        Raises:
            IntegrityError: the version's number or seal differs; the message has both.
        """
        if (base.model, base.version, base.seal) != (self.model, self.base, self.base_seal):
            message = (
                f"version {self.version} of {self.model} is a delta against version {self.base} with the seal "
                f"{self.base_seal[:12]}, but here version {base.version} of {base.model} has the seal "
                f"{base.seal[:12]}; push version {self.version} again, whole"
            )
            raise IntegrityError(message)


class PreparedDelta(NamedTuple):
    """What to ship: the description, and local files by their names there; `whole`: bytes of a full copy."""

    about: VersionDelta
    files: dict[str, Path]
    shipped: int
    whole: int


def prepare_delta(base: Bundle, target: Bundle, spans_of: SpansOf, work: Path) -> PreparedDelta:
    """Compare two verified bundles file by file; deltas are written to `work` where they are smaller than the file."""
    spans, base_spans = spans_of(target.path), spans_of(base.path)
    changes: dict[str, FileChange] = {}
    files: dict[str, Path] = {}
    for name, entry in target.manifest.files.items():
        before = base.manifest.files.get(name)
        if before is None:
            files[name] = target.path / name
        elif before.sha256 == entry.sha256:
            changes[name] = FileChange(base=before.sha256)
        else:
            path = work / f"{len(files)}{DELTA_SUFFIX}"
            rows = base_spans.get(name, ()), spans.get(name, ())
            make_delta(base.path / name, target.path / name, *rows).save(path)
            if path.stat().st_size < entry.size:
                delta = FileEntry(sha256=sha256_of(path), size=path.stat().st_size)
                changes[name] = FileChange(base=before.sha256, delta=delta)
                files[f"{name}{DELTA_SUFFIX}"] = path
            else:
                path.unlink()
                files[name] = target.path / name
    stated, seal = target.manifest, base.manifest.seal
    about = VersionDelta(
        model=stated.model, version=stated.version, base=base.manifest.version, base_seal=seal, changes=changes
    ).sealed()
    shipped = sum(path.stat().st_size for path in files.values())
    return PreparedDelta(about, files, shipped, sum(entry.size for entry in stated.files.values()))


def build_file(change: FileChange, entry: FileEntry, base: Path, delta: Path | None, target: Path) -> None:
    """Make one file of a version from the base's, and compare every sha256 on the way.

    Raises:
        IntegrityError: the base, the delta or the result is not what was promised; the message says which.
    """
    if change.delta is None or delta is None:
        made = _copy(base, target) if base.is_file() else ""
        if made != change.base:
            _require(base, change.base, "the base")
    else:
        _require(base, change.base, "the base")
        _require(delta, change.delta.sha256, "the delta")
        made = apply_delta(base, FileDelta.load(delta), target)
    if made != entry.sha256:
        message = (
            f"{target.name}, made of {base} and its delta, has the sha256 {made[:12]}, but the manifest promises "
            f"{entry.sha256[:12]}; push the version again, whole"
        )
        raise IntegrityError(message)


def _copy(source: Path, target: Path) -> str:
    """Copy a file; the sha256 of what was copied."""
    digest = RunningSha256()
    with source.open("rb") as old, target.open("wb") as new:
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            new.write(chunk)
    return digest.digest()


def _require(path: Path, promised: str, what: str) -> None:
    actual = sha256_of(path) if path.is_file() else "(absent)"
    if actual != promised:
        message = (
            f"{what} of {path.name.removesuffix(DELTA_SUFFIX)} has the sha256 {actual[:12]}, but {promised[:12]} was "
            f"promised; it was altered or damaged ({path})"
        )
        raise IntegrityError(message)
