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
from features.parquet import read_columns
from features.splits import LEFT_OUT, SPLIT, SPLIT_NAMES, draw_split, with_split
from features.stage import PLACE, PLACES, key_hashes

TRAIN = SPLIT_NAMES[0]


@dataclass(frozen=True)
class Staged:
    """Partition files, whose rows lie in the order of their places, and the split of each row.

    `days` are the last ones of the files, and `carried` is a folder for what they leave to later builds. `splits`
    [rows] is by row number, `by_file` [rows of a file] by place.
    """

    files: tuple[Path, ...]
    days: tuple[int, ...]
    carried: Path
    splits: NDArray[np.int8]
    by_file: tuple[NDArray[np.int8], ...]

    @classmethod
    def open(cls, connection: Backend, work: Work, config: FeaturesConfig, last_ms: int) -> "Staged":
        """Assign the rows of partitions to splits.

        Raises:
            DataError: no rows to train or to validate on.
        """
        files = work.files
        rows = [read_columns(file, [ROW])[ROW].to_numpy() for file in files]
        splits = np.full(max(int(numbers.max()) for numbers in rows) + 1, LEFT_OUT, dtype=np.int8)
        if isinstance(config.split, SplitByHash):
            for file, numbers in zip(files, rows, strict=True):
                splits[numbers] = _drawn(file, config, config.split)
        else:
            table = read_parquet(connection, [str(file) for file in files], hive=False)
            drawn = to_arrow(connection, with_split(connection, table, config, last_ms).select(ROW, SPLIT))
            splits[drawn[ROW].to_numpy()] = drawn[SPLIT].to_numpy()
        staged = cls(
            tuple(files), tuple(work.last_days), work.store.carried, splits, tuple(splits[numbers] for numbers in rows)
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
        return pq.read_schema(self.files[0])

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
        return next((n for n, splits in enumerate(self.by_file) if (splits != train).any()), len(self.files))

    def read_each(self, names: list[str], split: str = TRAIN, first: int = 0) -> Iterator[pa.Table]:
        """As `read`, a partition at a time, from the `first` on."""
        wanted = SPLIT_NAMES.index(split)
        for file, splits in zip(self.files[first:], self.by_file[first:], strict=True):
            yield _where(read_columns(file, names), splits == wanted)

    def sample(self, names: Collection[str], most: int) -> pa.Table:
        """Columns of about `most` training rows, the same however often the partitions are built."""
        bound = int(PLACES * min(1.0, most / max(self.counts[TRAIN], 1)))
        parts = (_up_to(file, bound, names) for file in self.files)
        train = SPLIT_NAMES.index(TRAIN)
        return pa.concat_tables([_where(p, s[: len(p)] == train) for p, s in zip(parts, self.by_file, strict=True)])

    def _check(self, config: FeaturesConfig) -> None:
        for name in SPLIT_NAMES[:2]:
            if not self.counts[name]:
                message = (
                    f"the split leaves no {name} rows ({self.counts}); change data.split, which is {config.split!r}"
                )
                raise DataError(message)


def _where(rows: pa.Table, mine: NDArray[np.bool_]) -> pa.Table:
    return rows if mine.all() else rows.filter(pa.array(mine))


def _drawn(file: Path, config: FeaturesConfig, split: SplitByHash) -> NDArray[np.int8]:
    """A random split from the hashes of keys and time."""
    keys = [key for key in (config.events.user, config.events.item) if key]
    rows = read_columns(file, list(dict.fromkeys([*keys, TIME, PLACE])))
    user, item = (key_hashes(rows, key) for key in (config.events.user, config.events.item))
    return draw_split(user, item, hash_array(rows[TIME]), split, config.seed)


def _up_to(path: Path, bound: int, names: Collection[str]) -> pa.Table:
    """The rows of a partition whose places lie below a bound."""
    columns = [PLACE, *names]
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        groups = [file.read_row_group(0, columns=columns)]
        while groups[-1][PLACE][-1].as_py() < bound and len(groups) < file.num_row_groups:
            groups.append(file.read_row_group(len(groups), columns=columns))
    rows = pa.concat_tables(groups)
    return rows.filter(pc.less(rows[PLACE], bound))
