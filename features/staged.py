"""The raw rows of all partitions, and which of them train, validate and test."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.config import FeaturesConfig, SplitByHash
from features.engine import Backend, read_parquet, to_arrow
from features.errors import DataError
from features.hashing import hash_array
from features.increment import Work
from features.kinds import ROW, TIME
from features.partition_rows import PartitionRows, history_names
from features.splits import LEFT_OUT, SPLIT, SPLIT_NAMES, draw_split, with_split
from features.stage import PLACE, PLACES, key_hashes

TRAIN = SPLIT_NAMES[0]


@dataclass(frozen=True)
class Staged:
    """Partitions, whose rows lie in the order of their places, and the split of each row.

    `days` are the last ones of the partitions, and `carried` is a folder for what they leave to later builds. `splits`
    [rows] is by row number, `by_part` [rows of a partition] by place.
    """

    parts: tuple[PartitionRows, ...]
    days: tuple[int, ...]
    carried: Path
    splits: NDArray[np.int8]
    by_part: tuple[NDArray[np.int8], ...]

    @classmethod
    def open(cls, connection: Backend, work: Work, config: FeaturesConfig, last_ms: int) -> "Staged":
        """Assign the rows of partitions to splits.

        Raises:
            DataError: no rows to train or to validate on.
        """
        names = history_names(config)
        parts = tuple(PartitionRows(file, names) for file in work.files)
        rows = [part.read([ROW])[ROW].to_numpy() for part in parts]
        splits = np.full(max(int(numbers.max()) for numbers in rows) + 1, LEFT_OUT, dtype=np.int8)
        if isinstance(config.split, SplitByHash):
            for part, numbers in zip(parts, rows, strict=True):
                splits[numbers] = _drawn(part, config, config.split)
        else:
            table = read_parquet(connection, [str(file) for file in work.files], hive=False)
            drawn = to_arrow(connection, with_split(connection, table, config, last_ms).select(ROW, SPLIT))
            splits[drawn[ROW].to_numpy()] = drawn[SPLIT].to_numpy()
        staged = cls(
            parts, tuple(work.last_days), work.store.carried, splits, tuple(splits[numbers] for numbers in rows)
        )
        staged._check(config)
        return staged

    @property
    def known_on(self) -> tuple[int, ...]:
        """By partition the day whose knowledge encodes it; the last partition knows all that is known."""
        return (*self.days[:-1], int(np.iinfo(np.int32).max))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the raw rows."""
        return self.parts[0].schema

    @property
    def counts(self) -> dict[str, int]:
        """Rows by split."""
        counts = np.bincount(self.splits, minlength=len(SPLIT_NAMES))
        return {name: int(counts[number]) for number, name in enumerate(SPLIT_NAMES)}

    def read(self, names: list[str], split: str = TRAIN) -> pa.Table:
        """Columns of all rows of a split, in the order of partitions."""
        return pa.concat_tables(self.read_each(names, split))

    @cached_property
    def settled(self) -> int:
        """How many partitions from the first on have nothing but rows to train on."""
        train = SPLIT_NAMES.index(TRAIN)
        return next((n for n, splits in enumerate(self.by_part) if (splits != train).any()), len(self.parts))

    def read_each(self, names: list[str], split: str = TRAIN, first: int = 0) -> Iterator[pa.Table]:
        """As `read`, a partition at a time, from the `first` on."""
        wanted = SPLIT_NAMES.index(split)
        for part, splits in zip(self.parts[first:], self.by_part[first:], strict=True):
            yield where(part.read(names), splits == wanted)

    def sample(self, names: Collection[str], most: int) -> pa.Table:
        """Columns of about `most` training rows, the same however often the partitions are built."""
        bound = int(PLACES * min(1.0, most / max(self.counts[TRAIN], 1)))
        parts = (_up_to(part, bound, names) for part in self.parts)
        train = SPLIT_NAMES.index(TRAIN)
        return pa.concat_tables([where(p, s[: len(p)] == train) for p, s in zip(parts, self.by_part, strict=True)])

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


def _drawn(part: PartitionRows, config: FeaturesConfig, split: SplitByHash) -> NDArray[np.int8]:
    """A random split from the hashes of keys and time."""
    keys = [key for key in (config.events.user, config.events.item) if key]
    rows = part.read(dict.fromkeys([*keys, TIME, PLACE]))
    user, item = (key_hashes(rows, key) for key in (config.events.user, config.events.item))
    return draw_split(user, item, hash_array(rows[TIME]), split, config.seed)


def _up_to(part: PartitionRows, bound: int, names: Collection[str]) -> pa.Table:
    """The rows of a partition whose places lie below a bound."""
    groups = range(pq.read_metadata(part.path).num_row_groups)
    last = next((g for g in groups if part.read([PLACE], [g])[PLACE][-1].as_py() >= bound), len(groups) - 1)
    rows = part.read({PLACE: None, **dict.fromkeys(names)}, groups[: last + 1])
    return rows.filter(pc.less(rows[PLACE], bound))
