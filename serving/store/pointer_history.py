"""Which version was the current one when: a line for each change, kept beside the pointer.

So rows of an earlier day can be judged by the version that served them, also after a roll-back. Changes that nobody
noted, made by hand or by an earlier moerank, are inferred: a version became current when it was published, and the
present pointer since its file was written.
"""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from contract.errors import IntegrityError
from contract.files import write_text
from contract.settings import Settings
from serving.store.manifest import Manifest

HISTORY_FILE = "current.history"
_POINTER = "current"


class PointerChange(Settings):
    """A version became the current one at `since_ms`, milliseconds since 1970."""

    version: int
    since_ms: int


class ServedStretch(Settings):
    """A version was the current one from `begin_ms` until before `end_ms`, milliseconds since 1970."""

    version: int
    begin_ms: int
    end_ms: int


def note_change(folder: Path, version: int) -> None:
    """Add a line to the history of a model's folder, for a caller that holds its lock."""
    path = folder / HISTORY_FILE
    earlier = path.read_text(encoding="utf-8") if path.exists() else ""
    change = PointerChange(version=version, since_ms=int(datetime.now(UTC).timestamp() * 1000))
    write_text(f"{earlier}{change.model_dump_json()}\n", path)


def pointer_changes(folder: Path) -> list[PointerChange]:
    """All changes of the pointer in a model's folder, the earliest first.

    Raises:
        IntegrityError: the history cannot be read.
    """
    noted = _noted(folder / HISTORY_FILE)
    # Manifests say whole seconds, so what both tell of is taken from the history.
    known = {change.version for change in noted}
    changes = [change for change in _published(folder) if change.version not in known] + noted
    pointer = folder / _POINTER
    if pointer.is_file():
        version = int(pointer.read_text(encoding="utf-8"))
        if not changes or changes[-1].version != version:
            changes.append(PointerChange(version=version, since_ms=int(pointer.stat().st_mtime * 1000)))
    return changes


def served_between(folder: Path, begin_ms: int, end_ms: int) -> list[ServedStretch]:
    """Which versions were current from `begin_ms` until before `end_ms`, in order; none before the first one.

    Raises:
        IntegrityError: the history cannot be read.
    """
    changes = [*pointer_changes(folder), PointerChange(version=0, since_ms=2**62)]
    stretches: list[ServedStretch] = []
    for change, after in pairwise(changes):
        begin, end = max(change.since_ms, begin_ms), min(after.since_ms, end_ms)
        if begin >= end:
            continue
        if stretches and stretches[-1].version == change.version:
            stretches[-1] = stretches[-1].model_copy(update={"end_ms": end})
        else:
            stretches.append(ServedStretch(version=change.version, begin_ms=begin, end_ms=end))
    return stretches


def _noted(path: Path) -> list[PointerChange]:
    if not path.exists():
        return []
    try:
        return [PointerChange.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValidationError as error:
        message = f"{path} cannot be read: {error.errors()[0]['msg']}; remove the line that is damaged"
        raise IntegrityError(message) from error


def _published(folder: Path) -> list[PointerChange]:
    """When the versions that are still there were published."""
    published = []
    for path in folder.glob("[1-9]*"):
        try:
            created = datetime.fromisoformat(Manifest.load(path).created)
        except (IntegrityError, ValueError):
            continue  # no bundle of this version of moerank, which nothing can be judged by anyway
        published.append(PointerChange(version=int(path.name), since_ms=int(created.timestamp() * 1000)))
    return sorted(published, key=lambda change: (change.since_ms, change.version))
