"""Learn the values of an id column, in the order of their frequency in training rows, or add to those known before."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.digests import digest_of
from contract.errors import DataError
from contract.hashing import hash_array
from contract.sha256 import sha256_of_bytes
from features.encode.vocabulary import ALWAYS, Days
from features.incremental.raw_dataset import RawDataset
from features.point_in_time.elapsed import LONGEST
from features.point_in_time.feature_plan import FeaturePlan
from features.source.file_schemas import EXACT_FLOAT
from features.source.parquet_files import write_table


class LearnedValues(NamedTuple):
    """Values in the order of their rows, null where a row is kept free, and the day since which each is known."""

    values: pa.Array
    since: Days


def learn_vocabulary(train: RawDataset, plan: FeaturePlan, before: LearnedValues | None) -> LearnedValues:
    """The values of an id feature or a history that training rows hold often enough.

    Without `before` they were known always, as those of elapsed times are, which need not be learned. With `before`,
    values that are new take rows after it, and are known from the partition on in which they had been seen often
    enough: what is encoded of the days before stays as it is.

    Raises:
        DataError: values that are not ids, or of another type than those known.
    """
    if plan.elapsed:
        return LearnedValues(pa.array(range(LONGEST + 1), pa.int64()), np.full(LONGEST + 1, ALWAYS, np.int32))
    source = plan.column or plan.history
    min_count = source.min_count if source else 1
    if before is not None:
        return _grow_vocabulary(train, plan, before, min_count)
    by_partition = [_counts(rows, plan) for rows in train.read_each([plan.raw[0]])]
    frequent = _at_least(_total(by_partition), min_count)
    if source is not None and source.unseen_days is not None:
        frequent = frequent.filter(pc.is_in(frequent, _lately(by_partition, train.days, source.unseen_days)))
    policy = plan.column
    reserved = policy.unknown_rows + (policy.nulls == "own") if policy else 0
    values = pa.concat_arrays([pa.nulls(reserved, frequent.type), frequent])
    return LearnedValues(values, np.full(len(values), ALWAYS, np.int32))


def is_string(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _grow_vocabulary(train: RawDataset, plan: FeaturePlan, before: LearnedValues, min_count: int) -> LearnedValues:
    """The known values in their rows, then those found that are new, in their order."""
    counted, below_min_count = _load_below_min_count(train, _below_min_count_name(plan, before))
    by_partition = [below_min_count] if below_min_count is not None else []
    for rows in train.read_each([plan.raw[0]], first=counted):
        counts = _counts(rows, plan)
        if len(before.values) and is_string(before.values.type) != is_string(counts["value"].type):
            message = (
                f"a vocabulary of {before.values.type} cannot grow by {counts['value'].type}; build without `grow`"
            )
            raise DataError(message)
        by_partition.append(_without(counts, before.values))
    new = _at_least(_total(by_partition), min_count)
    seen, since = np.zeros(len(new), dtype=np.int64), np.full(len(new), train.days[-1], dtype=np.int32)
    for counts, day in zip(by_partition, train.days[counted - (below_min_count is not None) :], strict=True):
        place = pc.index_in(new, value_set=counts["value"])
        was_below = seen < min_count
        seen += pc.fill_null(counts["count"].take(place), 0).to_numpy()
        since[was_below & (seen >= min_count)] = day
    learned = LearnedValues(
        pa.concat_arrays([before.values.cast(new.type), new]), np.concatenate([before.since, since])
    )
    _save_below_min_count(
        by_partition[: train.train_only - counted + (below_min_count is not None)], train, plan, learned
    )
    return learned


def _load_below_min_count(train: RawDataset, name: str) -> tuple[int, pa.Table | None]:
    """How many of the first partitions need not be counted again, and how often they hold values that are not known."""
    for counted in range(train.train_only, 0, -1):
        file = train.carry_over_folder / f"{train.parts[counted - 1].path.stem}.{name}.parquet"
        if file.is_file():
            return counted, pq.read_table(file, page_checksum_verification=True)
    return 0, None


def _save_below_min_count(
    by_partition: list[pa.Table], train: RawDataset, plan: FeaturePlan, learned: LearnedValues
) -> None:
    """Keep for the next build how often these partitions, whose rows all train, hold values below the minimum count."""
    name = _below_min_count_name(plan, learned)
    for file in train.carry_over_folder.glob(f"*.{name.partition('.')[0]}.*"):
        file.unlink()
    if by_partition:
        counts = _without(_total(by_partition), learned.values)
        write_table(counts, train.carry_over_folder / f"{train.parts[train.train_only - 1].path.stem}.{name}.parquet")


def _below_min_count_name(plan: FeaturePlan, learned: LearnedValues) -> str:
    """What such counts are kept as: it tells the feature, and by a digest what is known."""
    known = sha256_of_bytes(hash_array(learned.values).tobytes())[:16]
    return f"below_min_count_{digest_of(plan.name)}.{known}"


def _without(counts: pa.Table, before: pa.Array) -> pa.Table:
    """The counts of values that are not known."""
    return counts.filter(pc.invert(pc.is_in(counts["value"], value_set=before.drop_null().cast(counts["value"].type))))


def _total(counts: list[pa.Table]) -> pa.Table:
    """The counts of all partitions together."""
    total = pa.concat_tables(counts).group_by("value").aggregate([("count", "sum")])
    return total.rename_columns(["value", "count"])


def _lately(by_partition: list[pa.Table], days: tuple[int, ...], within: int) -> pa.Array:
    """The values of partitions that end within so many days before the last one with training rows, and of that one."""
    last = max((day for counts, day in zip(by_partition, days, strict=True) if len(counts)), default=0)
    late = [c["value"].combine_chunks() for c, day in zip(by_partition, days, strict=True) if day > last - within]
    return pa.concat_arrays(late)


def _at_least(counts: pa.Table, min_count: int) -> pa.Array:
    """The values that occur often enough, the most frequent first, equals in the order of their value."""
    frequent = counts.filter(pc.greater_equal(counts["count"], min_count))
    return frequent.sort_by([("count", "descending"), ("value", "ascending")])["value"].combine_chunks()


def _counts(rows: pa.Table, plan: FeaturePlan) -> pa.Table:
    """The distinct values of a partition, of lists those in them, and how often each occurs."""
    values = rows[plan.raw[0]].combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    values = values.drop_null()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.string()) if is_string(values.type) else _as_integers(values, plan.name)
    counted = pa.table({"value": values}).group_by("value").aggregate([("value", "count")])
    return counted.rename_columns(["value", "count"])


def _as_integers(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_floating(column.type) and not pc.all(pc.equal(pc.trunc(column), column)).as_py():
        message = f"feature {name!r} is an id, but its column has fractions; use kind: dense, or an integer column"
        raise DataError(message)
    if pa.types.is_floating(column.type) and pc.any(pc.greater_equal(pc.abs(column), float(EXACT_FLOAT))).as_py():
        message = (
            f"feature {name!r} is an id, but its column is stored with a fraction part, which cannot tell ids from "
            "2**53 on apart; store it as whole numbers or texts"
        )
        raise DataError(message)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    # Numbers beyond 2**63 keep their bits, as their hashes do.
    return column.view(pa.int64()) if pa.types.is_uint64(column.type) else column.cast(pa.int64())
