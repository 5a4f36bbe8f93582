"""Learn the values of an id column, in the order of their frequency in training rows, or add to those known before."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError
from features.plan import Planned
from features.staged import Staged
from features.vocabulary import ALWAYS, Days


class Words(NamedTuple):
    """Values in the order of their rows, null where a row is kept free, and the day since which each is known."""

    values: pa.Array
    since: Days


def learn(train: Staged, planned: Planned, known: Words | None) -> Words:
    """The values of an id feature or a history that training rows hold often enough.

    Without `known` they were known always. With `known`, values that are new take rows after it, and are known from
    the partition on in which they had been seen often enough: what is encoded of the days before stays as it is.

    Raises:
        DataError: values that are no ids, or of another type than those known.
    """
    source = planned.column or planned.history
    least = source.min_count if source else 1
    by_partition = [_counts(rows[planned.raw[0]], planned.name) for rows in train.read_each([planned.raw[0]])]
    total = pa.concat_tables(by_partition).group_by("value").aggregate([("count", "sum")])
    often = total.filter(pc.greater_equal(total["count_sum"], least))
    found = often.sort_by([("count_sum", "descending"), ("value", "ascending")])["value"].combine_chunks()
    if known is not None:
        return _grown(known, found, by_partition, train.days, least)
    policy = planned.column
    reserved = policy.unknown_rows + (policy.nulls == "own") if policy else 0
    values = pa.concat_arrays([pa.nulls(reserved, found.type), found])
    return Words(values, np.full(len(values), ALWAYS, np.int32))


def is_string(kind: pa.DataType) -> bool:
    """Whether values are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _grown(known: Words, found: pa.Array, by_partition: list[pa.Table], days: tuple[int, ...], least: int) -> Words:
    """The known values in their rows, then those found that are new, in their order."""
    values = known.values
    if len(values) and is_string(values.type) != is_string(found.type):
        message = f"a vocabulary of {values.type} cannot grow by {found.type}; build without `grow`"
        raise DataError(message)
    new = found.filter(pc.invert(pc.is_in(found, value_set=values.drop_null().cast(found.type))))
    seen = np.zeros(len(new), dtype=np.int64)
    since = np.full(len(new), days[-1], dtype=np.int32)
    for counts, day in zip(by_partition if len(new) else [], days, strict=False):
        place = pc.index_in(new, value_set=counts["value"])
        before = seen < least
        seen += pc.fill_null(counts["count"].take(place), 0).to_numpy()
        since[before & (seen >= least)] = day
    return Words(pa.concat_arrays([values.cast(found.type), new]), np.concatenate([known.since, since]))


def _counts(column: pa.ChunkedArray, name: str) -> pa.Table:
    """The distinct values of a partition, of lists those in them, and how often each occurs."""
    values = column.combine_chunks()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    values = values.drop_null()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = values.cast(pa.string()) if is_string(values.type) else _as_integers(values, name)
    counted = pa.table({"value": values}).group_by("value").aggregate([("value", "count")])
    return counted.rename_columns(["value", "count"])


def _as_integers(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_floating(column.type) and not pc.all(pc.equal(pc.trunc(column), column)).as_py():
        message = f"feature {name!r} is an id, but its column has fractions; use kind: dense, or an integer column"
        raise DataError(message)
    if pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.int32())
    return column.cast(pa.int64())
