"""The bundle's manifest: what the bundle is, and the size and sha256 of each of its files."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, JsonValue, ValidationError

from contract.errors import IntegrityError
from contract.ranking_policy import RankingPolicy
from contract.score import ScoreConfig
from contract.settings import Settings
from contract.sha256 import sha256_of_bytes

MANIFEST_FILE = "manifest.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 8 << 20
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class FileEntry(Settings):
    """What a file must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Facts(Settings):
    """What a publisher says about the model; everything else in the manifest follows from the files.

    `metrics` is free-form (task -> metric -> value is the custom), and so is `about`. `score` is the combined-score
    formula that a server uses unless its operator configures another.
    """

    schema_fingerprint: str
    tasks: tuple[str, ...] = Field(min_length=1)
    metrics: dict[str, JsonValue] = {}
    git_revision: str = ""
    libraries: dict[str, str] = {}
    score: ScoreConfig | RankingPolicy | None = None
    about: dict[str, JsonValue] = {}


class Manifest(Facts):
    """``manifest.json``: the facts, the name and version, and every other file of the bundle."""

    format: int = Field(default=FORMAT, ge=FORMAT, le=FORMAT)
    model: str = Field(pattern=f"^{NAME_PATTERN}$")
    version: int = Field(ge=1)
    created: str
    files: dict[str, FileEntry]
    seal: str = ""
    """The sha256 of all of the above as JSON, so that damage to the manifest itself is noticed."""

    def sealed(self) -> Self:
        """The same with the seal that it must have."""
        open_manifest = self.model_copy(update={"seal": ""})
        seal = sha256_of_bytes(open_manifest.model_dump_json().encode())
        return self.model_copy(update={"seal": seal})

    def text(self) -> str:
        """The one way to write it down."""
        return self.model_dump_json(indent=1) + "\n"

    def save(self, directory: Path) -> None:
        """Seal it and write ``manifest.json`` into an existing directory."""
        (directory / MANIFEST_FILE).write_text(self.sealed().text(), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read ``manifest.json``.

        Raises:
            IntegrityError: absent, oversized, a link, not a manifest of this format, naming unsafe paths, or altered.
        """
        path = directory / MANIFEST_FILE
        try:
            if path.is_symlink() or path.stat().st_size > MAX_MANIFEST_BYTES:
                message = f"{path} is a link or larger than {MAX_MANIFEST_BYTES} bytes; publish the bundle again"
                raise IntegrityError(message)
            content = path.read_bytes()
            manifest = cls.model_validate_json(content)
        except OSError as error:
            message = f"{directory} is not a bundle: {MANIFEST_FILE} cannot be read ({error.strerror})"
            raise IntegrityError(message) from error
        except ValidationError as error:
            _refuse_other_format(path, content)
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole file"
            message = f"{path} is not a bundle manifest of format {FORMAT}: {where}: {first['msg']}"
            raise IntegrityError(message) from error
        for name in manifest.files:
            require_safe(name)
        if manifest.sealed().text().encode() != content:
            message = f"{path} does not carry the seal of its content; it was altered or damaged"
            raise IntegrityError(message)
        return manifest


def _refuse_other_format(path: Path, content: bytes) -> None:
    """Name the cause where another version of moerank wrote the manifest."""
    try:
        written = json.loads(content).get("format")
    except (ValueError, AttributeError):
        return
    if isinstance(written, int) and written != FORMAT:
        older = "publish the model again with this moerank" if written < FORMAT else "serve it with a newer moerank"
        message = f"{path} has the format {written}, but this moerank reads format {FORMAT}: {older}"
        raise IntegrityError(message)


def require_safe(name: str) -> None:
    """Refuse a file name that could lead out of a bundle.

    Raises:
        IntegrityError: empty, absolute, with ``..``, backslashes or control characters, or not in normal form.
    """
    path = PurePosixPath(name)
    strange = re.search(r"[\x00-\x1f\x7f\\:]", name) is not None
    if not path.parts or strange or path.is_absolute() or ".." in path.parts or str(path) != name:
        message = (
            f"the file name {name!r} is not allowed in a bundle: use plain relative paths such as online/items.bin"
        )
        raise IntegrityError(message)
