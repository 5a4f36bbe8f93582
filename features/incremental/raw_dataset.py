"""The raw rows of all partitions, and which of them train, validate and test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contract.columns import SERVED_ROW, TIME
from contract.errors import DataError
from contract.hashing import hash_array
from features.feature_config import FeaturesConfig
from features.incremental.compute_rows import key_hashes
from features.incremental.raw_rows import SHUFFLE_KEY, PartitionRows, history_names
from features.incremental.raw_sample import sample_rows
from features.incremental.reuse import PartitionWork
from features.incremental.splits import LEFT_OUT, SPLIT, SPLIT_NAMES, TRAIN, draw_split, train_before, with_split
from features.source.query_engine import Backend, read_parquet, to_arrow
from features.source.row_types import ROW
from features.source.zones import day_begin_ms
from features.split_config import SplitByHash


@dataclass(frozen=True)
class RawDataset:
    """Partitions, whose rows lie in the order of their shuffle keys, and of each the split [rows] of its rows.

    `days` are the last ones of the partitions, and `carry_over_folder` is a folder for what they leave to later builds.
    `sampled` are the columns of `sample`.
    """

    parts: tuple[PartitionRows, ...]
    days: tuple[int, ...]
    carry_over_folder: Path
    splits: tuple[NDArray[np.int8], ...]
    sampled: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        connection: Backend,
        work: PartitionWork,
        config: FeaturesConfig,
        last_ms: int,
        sampled: tuple[str, ...] = (),
    ) -> "RawDataset":
        """Assign the rows of partitions to splits.

        Raises:
            DataError: no rows to train or to validate on.
        """
        names = history_names(config)
        parts = tuple(PartitionRows(file, names) for file in work.files)
        if isinstance(config.split, SplitByHash):
            splits = [_drawn(part, config, config.split) for part in parts]
        else:
            zone, train_end = config.events.time_zone, train_before(config, last_ms)
            ends = [day_begin_ms(day + 1, zone) for day in work.last_days[:-1]]
            first = sum(train_end is not None and end <= train_end for end in ends)
            splits = [np.full(part.metadata.num_rows, TRAIN, np.int8) for part in parts[:first]]
            splits += _by_expression(connection, parts[first:], config, last_ms)
        if config.events.served is not None:
            splits = [_served_alone(part, of_part) for part, of_part in zip(parts, splits, strict=True)]
        raw_dataset = cls(parts, tuple(work.last_days), work.store.carry_over_folder, tuple(splits), sampled)
        raw_dataset._check(config)
        return raw_dataset

    @property
    def known_on(self) -> tuple[int, ...]:
        """By partition the day whose knowledge encodes it; the last partition knows all that is known."""
        return (*self.days[:-1], int(np.iinfo(np.int32).max))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the raw rows."""
        return self.parts[0].schema

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by split."""
        counts = np.sum([np.bincount(splits, minlength=LEFT_OUT + 1) for splits in self.splits], axis=0)
        return {name: int(counts[number]) for number, name in enumerate(SPLIT_NAMES)}

    def read(self, names: list[str], split: int = TRAIN) -> pa.Table:
        """Columns of all rows of a split, in the order of partitions."""
        return pa.concat_tables(self.read_each(names, split))

    @cached_property
    def train_only(self) -> int:
        """How many partitions from the first on have nothing but rows to train on."""
        return next((n for n, splits in enumerate(self.splits) if (splits != TRAIN).any()), len(self.parts))

    def read_each(self, names: list[str], split: int = TRAIN, first: int = 0) -> Iterator[pa.Table]:
        """As `read`, a partition at a time, from the `first` on."""
        for part, splits in zip(self.parts[first:], self.splits[first:], strict=True):
            yield where(part.read(names), splits == split)

    @cached_property
    def sample(self) -> pa.Table:
        """Some training rows, the same however often the partitions are built: their `sampled` columns."""
        return sample_rows(self.parts, self.splits, self.train_only, self.carry_over_folder, self.sampled)

    def _check(self, config: FeaturesConfig) -> None:
        for name in SPLIT_NAMES[:2]:
            if not self.counts[name]:
                message = (
                    f"the split leaves no {name} rows ({self.counts}); change data.split, which is {config.split!r}"
                )
                raise DataError(message)


def where(rows: pa.Table, mine: NDArray[np.bool_]) -> pa.Table:
    """The rows that are marked; where all are, without a copy."""
    return rows if mine.all() else rows.filter(pa.array(mine))


def _served_alone(part: PartitionRows, splits: NDArray[np.int8]) -> NDArray[np.int8]:
    """The splits of rows, but for those that were not served, which go nowhere."""
    served = part.read([SERVED_ROW])[SERVED_ROW].is_valid().to_numpy()
    return np.where(served, splits, LEFT_OUT).astype(np.int8)


def _drawn(part: PartitionRows, config: FeaturesConfig, split: SplitByHash) -> NDArray[np.int8]:
    """A random split from the hashes of keys and time."""
    keys = [key for key in (config.events.user, config.events.item) if key]
    rows = part.read(dict.fromkeys([*keys, TIME, SHUFFLE_KEY]))
    user, item = (key_hashes(rows, key) for key in (config.events.user, config.events.item))
    return draw_split(user, item, hash_array(rows[TIME]), split, config.seed)


def _by_expression(
    connection: Backend, parts: Sequence[PartitionRows], config: FeaturesConfig, last_ms: int
) -> list[NDArray[np.int8]]:
    """The splits of partitions' rows that an expression over all these rows tells."""
    if not parts:
        return []
    table = read_parquet(connection, [str(part.path) for part in parts])
    drawn = to_arrow(connection, with_split(connection, table, config, last_ms).select(ROW, SPLIT))
    rows = [part.read([ROW])[ROW].to_numpy() for part in parts]
    first = min(int(numbers.min()) for numbers in rows)
    splits = np.full(max(int(numbers.max()) for numbers in rows) + 1 - first, LEFT_OUT, dtype=np.int8)
    splits[drawn[ROW].to_numpy() - first] = drawn[SPLIT].to_numpy()
    return [splits[numbers - first] for numbers in rows]
