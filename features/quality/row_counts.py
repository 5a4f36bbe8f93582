"""What is counted of all encoded rows: a partition at a time, and kept beside its encoded rows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from contract.columns import ITEM_HASH, TIME, USER_HASH, label_column, task_columns, weight_column
from contract.files import appearing
from contract.hashing import Hashes, combine, hash_array
from contract.settings import Settings
from features.source.parquet_files import read_columns
from features.source.row_types import DAY_MS


class RowCounts(Settings):
    """A partition's rows, how many of them repeat another's user, item and time, and when they happened.

    `labels` are by task and day (UTC, since 1970) the number of labelled rows and the sum of their labels.
    """

    rows: int
    repeats: int
    first_ms: int
    last_ms: int
    labels: dict[str, dict[int, tuple[int, float]]]


def count_rows(pieces: Sequence[Path], cached: Path, tasks: Sequence[str]) -> RowCounts:
    """Count a partition's encoded rows, which lie in `pieces`; the counts are kept in a file."""
    if cached.is_file():
        return RowCounts.model_validate_json(cached.read_bytes())
    counts = _count(pieces, tasks)
    with appearing(cached) as partial:
        partial.write_text(counts.model_dump_json() + "\n", encoding="utf-8")
    return counts


def older_than(pieces: Sequence[Path], counts: RowCounts, moment_ms: int) -> int:
    """How many of a partition's rows are older than a moment."""
    if counts.last_ms < moment_ms or counts.first_ms >= moment_ms:
        return counts.rows if counts.last_ms < moment_ms else 0
    times = pa.concat_arrays([read_columns(piece, [TIME])[TIME].combine_chunks() for piece in pieces])
    return int(pc.sum(pc.less(times, moment_ms)).as_py())


def label_rates(counts_by_partition: Sequence[RowCounts], task: str) -> dict[str, float]:
    """The mean label of each day."""
    seen: dict[int, int] = defaultdict(int)
    total: dict[int, float] = defaultdict(float)
    for counts in counts_by_partition:
        for day, (count, labels) in counts.labels[task].items():
            seen[day] += count
            total[day] += labels
    return {str(np.datetime64(day, "D")): round(total[day] / seen[day], 6) for day in sorted(seen)}


def _count(pieces: Sequence[Path], tasks: Sequence[str]) -> RowCounts:
    """Count a row group at a time, so that a partition of many millions of rows takes little but its hashes."""
    hashes: list[Hashes] = []
    ends: list[int] = []
    labels: dict[str, dict[int, tuple[int, float]]] = {task: {} for task in tasks}
    names = [USER_HASH, ITEM_HASH, TIME, *task_columns(tasks)]
    for rows in _row_groups(pieces, names):
        times = rows[TIME].to_numpy()
        user, item = (rows[key].to_numpy() | np.uint64(1) for key in (USER_HASH, ITEM_HASH))
        hashes.append(combine([user, item, hash_array(rows[TIME])]))
        ends += [int(times.min()), int(times.max())]
        for task, by_day in labels.items():
            is_labelled = rows[weight_column(task)].to_numpy() > 0
            _add(by_day, times[is_labelled] // DAY_MS, rows[label_column(task)].to_numpy()[is_labelled])
    sorted_hashes = np.sort(np.concatenate(hashes))
    repeats = int(np.count_nonzero(sorted_hashes[1:] == sorted_hashes[:-1]))
    return RowCounts(rows=len(sorted_hashes), repeats=repeats, first_ms=min(ends), last_ms=max(ends), labels=labels)


def _row_groups(pieces: Sequence[Path], names: list[str]) -> Iterator[pa.Table]:
    for piece in pieces:
        with pq.ParquetFile(piece, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=names)


def _add(by_day: dict[int, tuple[int, float]], days: NDArray[np.int64], labels: NDArray[np.float32]) -> None:
    """Add labels [rows] to the number and the sum of their days."""
    if not len(days):
        return
    first = int(days.min())
    seen, total = np.bincount(days - first), np.bincount(days - first, labels)
    for day in np.flatnonzero(seen).tolist():
        before = by_day.get(first + day, (0, 0.0))
        by_day[first + day] = (before[0] + int(seen[day]), before[1] + float(total[day]))
