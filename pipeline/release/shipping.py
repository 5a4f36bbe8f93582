"""What a published version's copy behind a URL is made of: all of its files, or what changed since an earlier one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from contract.digests import digest_of
from contract.errors import ConfigError
from pipeline.console import Progress
from pipeline.project.project_config import ProjectConfig
from pipeline.release.table_rows import table_rows
from pipeline.step_cache import once
from serving.store.remote_store import RemoteStore


@dataclass(frozen=True)
class Shipping:
    """Where a project's versions are copied to; `base`: as deltas against that version, 0 for the current one there."""

    store: Path
    model: str
    url: str
    base: int | None

    @classmethod
    def of(cls, config: ProjectConfig, delta: bool | int | None) -> Self | None:  # noqa: FBT001 as it was asked for
        """What the project's file and ``--delta`` ask for; None without a mirror.

        Raises:
            ConfigError: a delta is asked for, and there is no mirror.
        """
        if config.mirror is None:
            if delta:
                message = (
                    "publish --delta ships to the project's mirror, which it does not name: set mirror: "
                    "s3://bucket/models; servers that read this store's directory map a version's tables where they "
                    "lie, so nothing is shipped"
                )
                raise ConfigError(message)
            return None
        setting = config.mirror_delta if delta is None else delta
        base = None if setting is False else 0 if setting is True else setting
        return cls(config.store, config.name, config.mirror, base)

    def ship(self, version: int, record: Path) -> None:
        """Copy a version, once: who rolls back there is not overruled. `record` is the step's directory."""

        def work(progress: Progress) -> dict[str, Any]:
            progress(f"copying version {version} to {self.url}")
            mirror = RemoteStore(self.url)
            if self.base is None:
                return {"version": mirror.push(self.store, self.model, version)}
            shipment = mirror.push_delta(self.store, self.model, version, self.base or None, table_rows)
            progress.say(f"mirror: {shipment}")
            return dict(shipment._asdict())

        record.mkdir(exist_ok=True)
        once("mirror", record, digest_of("mirror", self.url, version), work, (), in_place=False)
