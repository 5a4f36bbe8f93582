"""Learn the values of an id column, in the order of their frequency in training rows, or add to those known before."""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.digests import digest_of
from contract.errors import DataError
from contract.hashing import hash_array
from features.encode.vocabulary import ALWAYS, Days
from features.incremental.raw_dataset import RawDataset
from features.point_in_time.feature_plan import Planned
from features.source.parquet_files import write_table


class Words(NamedTuple):
    """Values in the order of their rows, null where a row is kept free, and the day since which each is known."""

    values: pa.Array
    since: Days


def learn(train: RawDataset, planned: Planned, known: Words | None) -> Words:
    """The values of an id feature or a history that training rows hold often enough.

    Without `known` they were known always. With `known`, values that are new take rows after it, and are known from
    the partition on in which they had been seen often enough: what is encoded of the days before stays as it is.

    Raises:
        DataError: values that are no ids, or of another type than those known.
    """
    source = planned.column or planned.history
    least = source.min_count if source else 1
    if known is not None:
        return _grow(train, planned, known, least)
    found = _often(_total([_counts(rows, planned) for rows in train.read_each([planned.raw[0]])]), least)
    policy = planned.column
    reserved = policy.unknown_rows + (policy.nulls == "own") if policy else 0
    values = pa.concat_arrays([pa.nulls(reserved, found.type), found])
    return Words(values, np.full(len(values), ALWAYS, np.int32))


def is_string(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _grow(train: RawDataset, planned: Planned, known: Words, least: int) -> Words:
    """The known values in their rows, then those found that are new, in their order."""
    held, rare = _load_rare(train, _rare_name(planned, known))
    by_partition = [rare] if rare is not None else []
    for rows in train.read_each([planned.raw[0]], first=held):
        counts = _counts(rows, planned)
        if len(known.values) and is_string(known.values.type) != is_string(counts["value"].type):
            message = f"a vocabulary of {known.values.type} cannot grow by {counts['value'].type}; build without `grow`"
            raise DataError(message)
        by_partition.append(_without(counts, known.values))
    new = _often(_total(by_partition), least)
    seen, since = np.zeros(len(new), dtype=np.int64), np.full(len(new), train.days[-1], dtype=np.int32)
    for counts, day in zip(by_partition, train.days[held - (rare is not None) :], strict=True):
        place = pc.index_in(new, value_set=counts["value"])
        before = seen < least
        seen += pc.fill_null(counts["count"].take(place), 0).to_numpy()
        since[before & (seen >= least)] = day
    words = Words(pa.concat_arrays([known.values.cast(new.type), new]), np.concatenate([known.since, since]))
    _save_rare(by_partition[: train.train_only - held + (rare is not None)], train, planned, words)
    return words


def _load_rare(train: RawDataset, name: str) -> tuple[int, pa.Table | None]:
    """How many of the first partitions need not be counted again, and how often they hold values that are not known."""
    for held in range(train.train_only, 0, -1):
        file = train.carry_over_folder / f"{train.parts[held - 1].path.stem}.{name}.parquet"
        if file.is_file():
            return held, pq.read_table(file, page_checksum_verification=True)
    return 0, None


def _save_rare(by_partition: list[pa.Table], train: RawDataset, planned: Planned, words: Words) -> None:
    """Keep for the next build how often the partitions, all of whose rows train, hold values that are not known yet."""
    name = _rare_name(planned, words)
    for file in train.carry_over_folder.glob(f"*.{name.partition('.')[0]}.*"):
        file.unlink()
    if by_partition:
        counts = _without(_total(by_partition), words.values)
        write_table(counts, train.carry_over_folder / f"{train.parts[train.train_only - 1].path.stem}.{name}.parquet")


def _rare_name(planned: Planned, words: Words) -> str:
    """What such counts are kept as: it tells the feature, and by a digest what is known."""
    return f"rare_{digest_of(planned.name)}.{hashlib.sha256(hash_array(words.values).tobytes()).hexdigest()[:16]}"


def _without(counts: pa.Table, known: pa.Array) -> pa.Table:
    """The counts of values that are not known."""
    return counts.filter(pc.invert(pc.is_in(counts["value"], value_set=known.drop_null().cast(counts["value"].type))))


def _total(counts: list[pa.Table]) -> pa.Table:
    """The counts of all partitions together."""
    total = pa.concat_tables(counts).group_by("value").aggregate([("count", "sum")])
    return total.rename_columns(["value", "count"])


def _often(counts: pa.Table, least: int) -> pa.Array:
    """The values that occur often enough, the most frequent first, equals in the order of their value."""
    often = counts.filter(pc.greater_equal(counts["count"], least))
    return often.sort_by([("count", "descending"), ("value", "ascending")])["value"].combine_chunks()


def _counts(rows: pa.Table, planned: Planned) -> pa.Table:
    """The distinct values of a partition, of lists those in them, and how often each occurs."""
    values = rows[planned.raw[0]].combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    values = values.drop_null()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.string()) if is_string(values.type) else _as_integers(values, planned.name)
    counted = pa.table({"value": values}).group_by("value").aggregate([("value", "count")])
    return counted.rename_columns(["value", "count"])


def _as_integers(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_floating(column.type) and not pc.all(pc.equal(pc.trunc(column), column)).as_py():
        message = f"feature {name!r} is an id, but its column has fractions; use kind: dense, or an integer column"
        raise DataError(message)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    # Numbers beyond 2**63 keep their bits, as their hashes do.
    return column.view(pa.int64()) if pa.types.is_uint64(column.type) else column.cast(pa.int64())
