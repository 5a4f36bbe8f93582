"""What a project keeps: how large its parts are, and which old runs and versions may go.

Never removed: the version that is current, the newest ones, the runs that made these, the newest runs, and a log of
served requests that is trained on.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from contract.settings import Settings
from pipeline.step_cache import read_record
from serving.store import local_store

Count = Annotated[int, Field(ge=1)]
_DAY = "[0-9]" * 4 + "-[0-9][0-9]" * 2


class RetentionConfig(Settings):
    """What stays when a night is over."""

    runs: Count | None = None
    """Training runs to keep; null: all."""
    versions: Count | None = None
    """Published versions to keep; null: all."""
    logs: Count | None = None
    """Days to keep of the log of served requests in the folder `monitor.served`; null: all. A log that `data.events`
    trains on stays whole."""


@dataclass(frozen=True)
class Project:
    """Where a project's parts lie: below `root`, its model `name` in `store`; `log` is that of served requests."""

    root: Path
    store: Path
    name: str
    log: Path | None = None

    def runs(self) -> list[Path]:
        """Training runs, the newest first."""
        folder = self.root / "training"
        directories = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted(directories, key=lambda path: path.stat().st_mtime, reverse=True)

    def versions(self) -> list[int]:
        """Published versions, the newest first."""
        return local_store.versions(self.store, self.name)[::-1]

    def logged_days(self) -> list[Path]:
        """The folders of days of the log, the newest first."""
        if self.log is None:
            return []
        own = self.log / f"model={self.name}"
        return sorted((own if own.is_dir() else self.log).glob(f"date={_DAY}"), reverse=True)

    def current(self) -> int | None:
        """The version that is served, if any is."""
        return local_store.current(self.store, self.name) if self.versions() else None


@dataclass(frozen=True)
class Outdated:
    """What a rule lets go."""

    runs: tuple[Path, ...]
    versions: tuple[int, ...]
    logs: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, list[str] | list[int]]:
        """Plain values."""
        paths = {"runs": list(map(str, self.runs)), "logs": list(map(str, self.logs))}
        return {**paths, "versions": list(self.versions)}


def sizes(project: Project) -> dict[str, int]:
    """Bytes of each part of a project; a file that stands in two parts by a hard link counts in the first."""
    seen: set[tuple[int, int]] = set()
    parts = {"features": "features", "kept days": "features-days", "training": "training", "store": "store"}
    found = {name: _bytes(project.root / folder, seen) for name, folder in parts.items()}
    return found if project.log is None else {**found, "served log": _bytes(project.log, seen)}


def _bytes(folder: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for path in folder.rglob("*"):
        status = path.lstat()
        identity = (status.st_dev, status.st_ino)
        if path.is_file() and identity not in seen:
            seen.add(identity)
            total += status.st_size
    return total


def outdated(project: Project, config: RetentionConfig) -> Outdated:
    """The runs, versions and days of the log that the rules let go."""
    versions = project.versions()
    remaining = {*versions[: config.versions], project.current()}
    runs = project.runs()
    sources = {run for run in runs if (version := _version_of(run)) is not None and version in remaining}
    kept_runs = {*runs[: config.runs], *sources}
    return Outdated(
        runs=tuple(run for run in runs if run not in kept_runs),
        versions=tuple(version for version in versions if version not in remaining),
        logs=tuple(project.logged_days()[config.logs :]) if config.logs else (),
    )


def _version_of(run: Path) -> int | None:
    """The version that a run published, if it did."""
    record = read_record(run / "publication")
    name = "" if record is None else Path(str(record.result.get("bundle", ""))).name
    return int(name) if local_store.is_version(name) else None


def prune(project: Project, config: RetentionConfig) -> Outdated:
    """Remove what the rules let go.

    Raises:
        ConfigError: a version became the current one while this ran.
    """
    going = outdated(project, config)
    for version in going.versions:
        local_store.remove(project.store, project.name, version)
    for folder in (*going.runs, *going.logs):
        # Renamed first, so that a half removed run or day is never taken for a whole one.
        doomed = folder.with_name(f".removed-{folder.name}")
        folder.rename(doomed)
        shutil.rmtree(doomed)
    return going
