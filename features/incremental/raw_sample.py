"""A sample of the training rows: those whose shuffle key, a hash of their number, lies below a bound.

It is the same however often partitions are built. Of the partitions that have nothing but training rows it is carried
to the next build, which needs a part of it: the bound falls as rows are added.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.incremental.raw_rows import SHUFFLE_KEY, SHUFFLE_MODULUS, PartitionRows
from features.incremental.splits import TRAIN
from features.source.parquet_files import AtomicWriter, read_columns

SAMPLE_ROWS = 200_000
"""Rows of a sample, about: LightGBM makes its bins of as many (`bin_construct_sample_cnt`)."""
READERS = 2
"""Partitions that are read at a time."""
FEW = 8
"""The carried sample is made again when it lacks more partitions than these."""


def sample_rows(
    parts: Sequence[PartitionRows],
    splits: Sequence[NDArray[np.int8]],
    train_only: int,
    carry_over_folder: Path,
    columns: Sequence[str],
) -> pa.Table:
    """Columns of about `SAMPLE_ROWS` training rows; the first `train_only` partitions have no other rows.

    Raises:
        OSError: a page is damaged.
    """
    train = sum(int(np.count_nonzero(of_partition == TRAIN)) for of_partition in splits)
    bound = int(SHUFFLE_MODULUS * min(1.0, SAMPLE_ROWS / max(train, 1)))
    names = list(dict.fromkeys([*columns, SHUFFLE_KEY]))
    covered, before = _cached_sample(parts[:train_only], carry_over_folder, bound, names)

    def read(number: int) -> pa.Table:
        rows = _up_to(parts[number], bound, names)
        return rows.filter(pa.array((splits[number] == TRAIN)[: len(rows)]))

    with ThreadPoolExecutor(READERS) as readers:
        fresh = list(readers.map(read, range(covered, len(parts))))
    if train_only - covered > FEW:
        _cache_sample(
            pa.concat_tables([*before, *fresh[: train_only - covered]]), parts[train_only - 1], carry_over_folder, bound
        )
    return pa.concat_tables([*before, *fresh])


def _cached_sample(
    parts: Sequence[PartitionRows], carry_over_folder: Path, bound: int, names: list[str]
) -> tuple[int, list[pa.Table]]:
    """How many of the first partitions an earlier sample covers up to the bound, and its rows below it."""
    for covered in range(len(parts), 0, -1):
        for file in carry_over_folder.glob(f"{parts[covered - 1].path.stem}.sample_*.parquet"):
            cached_bound = int(file.stem.rpartition("_")[2])
            if cached_bound >= bound:
                rows = read_columns(file, names)
                return covered, [rows if cached_bound == bound else rows.filter(pc.less(rows[SHUFFLE_KEY], bound))]
    return 0, []


def _cache_sample(rows: pa.Table, last: PartitionRows, carry_over_folder: Path, bound: int) -> None:
    for file in carry_over_folder.glob("*.sample_*.parquet"):
        file.unlink()
    with AtomicWriter(carry_over_folder / f"{last.path.stem}.sample_{bound}.parquet", rows.schema, "lz4") as writer:
        writer.write(rows)


def _up_to(part: PartitionRows, bound: int, names: list[str]) -> pa.Table:
    """The rows of a partition whose shuffle keys lie below a bound; it begins with them."""
    column = next(c for c in range(part.metadata.num_columns) if part.metadata.schema.column(c).path == SHUFFLE_KEY)
    groups = [part.metadata.row_group(g).column(column) for g in range(part.metadata.num_row_groups)]
    rows = part.read(names, [g for g, group in enumerate(groups) if g == 0 or group.statistics.min < bound])
    return rows.filter(pc.less(rows[SHUFFLE_KEY], bound))
