"""Where built partitions are kept between builds: one file each, there whole or not at all, named by day and stamp."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from contract.files import TEMPORARY_PREFIX, appearing
from contract.settings import Settings
from features.incremental.partitions import DayFacts, Partition

_LOG_FILE, _CODE_FILE = "log.json", "code.json"


class LastLog(Settings):
    """What the last finished build saw: `seed` of its stamps, the log's files with their versions, and its days.

    `until` is the last day that it was to read.
    """

    seed: str
    until: date | None = None
    files: dict[str, str]
    days: dict[int, DayFacts]

    @property
    def rows(self) -> dict[int, int]:
        """The number of events by day."""
        return {day: facts.rows for day, facts in self.days.items()}


class PartitionStore:
    """A directory of partitions, and beside them what later builds compare with.

    In `encoded` lie their encoded rows, and in `carry_over_folder` what later days need of all days up to a partition.
    The names of these files begin with that of the partition's.
    """

    def __init__(self, directory: Path) -> None:
        """Use or make the directory."""
        self.encoded, self.carry_over_folder = directory / "encoded", directory / "carried"
        for folder in (self.encoded, self.carry_over_folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def path(self, partition: Partition) -> Path:
        """The file of a partition's rows."""
        return self._directory / f"{np.datetime64(partition.first, 'D')}-{partition.stamp}.parquet"

    def ready(self, plan: Sequence[Partition]) -> int:
        """How many partitions from the first on are there."""
        missing = (place for place, partition in enumerate(plan) if not self.path(partition).is_file())
        return next(missing, len(plan))

    def keep(self, plan: Sequence[Partition]) -> None:
        """Remove every other partition with what was made of it, and what a killed build left half written."""
        stems = {self.path(partition).stem for partition in plan}
        for file in [*self._directory.glob("*-*.parquet"), *self.encoded.iterdir(), *self.carry_over_folder.iterdir()]:
            if file.name.partition(".")[0] not in stems:
                file.unlink()
        for file in self._directory.glob(f"{TEMPORARY_PREFIX}*"):
            file.unlink()

    def attributes(self, side: str) -> Path:
        """The copy of the users' or items' attributes that the partitions were built with."""
        return self._directory / f"{side}.parquet"

    @property
    def code_memo(self) -> Path:
        """The file that remembers the digest of the code."""
        return self._directory / _CODE_FILE

    def last(self) -> LastLog | None:
        """What the last finished build saw; None if there was none, or none that this version can read."""
        try:
            return LastLog.model_validate_json((self._directory / _LOG_FILE).read_bytes())
        except (OSError, ValidationError):
            return None

    def known_files(self) -> dict[str, str]:
        """The log's files with their versions, as the last finished build saw them."""
        last = self.last()
        return last.files if last else {}

    def save_last(self, log: LastLog) -> None:
        """Remember what a finished build saw."""
        with appearing(self._directory / _LOG_FILE) as partial:
            partial.write_text(json.dumps(log.model_dump(mode="json")) + "\n", encoding="utf-8")
