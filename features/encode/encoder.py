"""Values to model inputs: the one transform that training and serving share.

Ids become rows of their feature's table, 0 standing for unknown and null. Numbers become one float each, never NaN.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import DataError
from contract.hashing import NULL_HASH, Hashes, combine, hash_array, hash_text, mix
from contract.schema import DenseSpec, FeatureSpec, IdSpec, Schema
from features.encode.vocabulary import Vocabularies
from features.point_in_time.ragged import Ragged

NULL_POSITION = np.float32(-1.0)
LARGEST = 1e6
"""Bounds a standardised value, so that float32 sums inside a model stay finite whatever a request holds."""
_HALF_MAX = float(np.finfo(np.float16).max)
MANY = 4096
"""Columns from this length on are looked up by their distinct values."""
Ids = NDArray[np.int32]
Floats = NDArray[np.float32]


class Encoder:
    """Encodes columns by feature, with the schema's fitted numbers and the vocabularies."""

    def __init__(self, schema: Schema, vocabularies: Vocabularies) -> None:
        """Keep what was fitted; this class learns nothing."""
        self.schema = schema
        self._vocabularies = self.vocabularies = vocabularies

    def as_of(self, day: int) -> "Encoder":
        """With the ids alone that were known on a day."""
        known = self._vocabularies.as_of(day)
        return self if known is self._vocabularies else Encoder(self.schema, known)

    def known_values(self, spec: IdSpec) -> pa.Array:
        """The values of a feature's vocabulary by row, from row 1; null where a row is kept free."""
        return self._vocabularies.values(spec.table_name)

    def ids(self, spec: IdSpec, values: pa.Array) -> Ids:
        """Rows [rows] of the feature's table."""
        return self._distinct_rows(spec, values)

    def lists(self, spec: IdSpec, values: pa.Array) -> Ragged:
        """Packed rows of a list column, each list cut to its last `max_length` values; null is an empty list."""
        if not (pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_null(values.type)):
            message = f"feature {spec.name!r} takes lists, but the column is {values.type}"
            raise DataError(message)
        if pa.types.is_null(values.type):
            return Ragged.empty(len(values))
        flat, lengths = _cut(values, spec.max_length)
        return Ragged.packed(self._distinct_rows(spec, flat), lengths)

    def _distinct_rows(self, spec: IdSpec, values: pa.Array) -> Ids:
        """As `rows`, of many values by looking each distinct one up once."""
        if len(values) < MANY or pa.types.is_dictionary(values.type):
            return self.rows(spec, hash_array(values))
        encoded = values.dictionary_encode()
        rows = self.rows(spec, np.append(hash_array(encoded.dictionary), NULL_HASH))
        return rows.take(pc.fill_null(encoded.indices, len(rows) - 1).to_numpy())

    def dense(self, spec: DenseSpec, values: pa.Array) -> Floats:
        """Floats [rows]: a position among the quantile edges, or a standardised value."""
        return self.numbers(spec, as_float64(values, spec.name))

    def numbers(self, spec: DenseSpec, floats: NDArray[np.float64]) -> Floats:
        """As `dense`, from floats [rows] in which NaN is null."""
        encoded = encode_dense(spec, floats if spec.fill is None else np.where(np.isnan(floats), spec.fill, floats))
        return np.clip(encoded, -_HALF_MAX, _HALF_MAX).astype(np.float16).astype(np.float32) if spec.half else encoded

    def rows(self, spec: IdSpec, hashes: Hashes) -> Ids:
        """As `ids`, from hashes [rows]."""
        missing = hashes == NULL_HASH
        if spec.encoding == "hash":
            salted = combine([hashes, np.array([hash_text(spec.table_name)], dtype=np.uint64)])
            return np.where(missing, 0, salted % np.uint64(spec.rows - 1) + np.uint64(1)).astype(np.int32)
        rows = self._vocabularies.rows(spec.table_name, hashes)
        if spec.unknown_rows:
            shared = mix(hashes) % np.uint64(spec.unknown_rows) + np.uint64(1 + spec.null_row)
            rows = np.where((rows == 0) & ~missing, shared, rows).astype(np.int32)
        return np.where(missing, 1, rows).astype(np.int32) if spec.null_row else rows


def refuse_by_policy(spec: FeatureSpec, values: pa.Array) -> None:
    """Apply a feature's policies that refuse.

    Raises:
        DataError: a null or a NaN where the recipe refuses it; how many there are is said.
    """
    if spec.refuse_null:
        refuse_nulls(spec, values.is_null().to_numpy(zero_copy_only=False))
    if isinstance(spec, DenseSpec) and spec.refuse_nan and pa.types.is_floating(values.type):
        nans = int(pc.sum(pc.is_nan(values)).as_py() or 0)
        if nans:
            message = f"feature {spec.name!r} is NaN in {nans} of {len(values)} rows, and its policy refuses NaN"
            raise DataError(message)


def refuse_nulls(spec: FeatureSpec, missing: NDArray[np.bool_]) -> None:
    """Apply a feature's policy for nulls to a column [rows] of which it is known where it is null.

    Raises:
        DataError: as `refuse_by_policy`.
    """
    if spec.refuse_null and missing.any():
        nulls = f"{int(missing.sum())} of {len(missing)}"
        message = f"feature {spec.name!r} is null in {nulls} rows, and its policy refuses nulls"
        raise DataError(message)


def encode_dense(spec: DenseSpec, values: NDArray[np.float64]) -> Floats:
    """Encode floats [rows] in which NaN is null."""
    missing = np.isnan(values)
    if spec.encoding == "piecewise_linear":
        filled = np.where(missing, spec.edges[0] if spec.edges else 0.0, values)
        position = np.interp(filled, spec.edges, np.arange(len(spec.edges))).astype(np.float32)
        return np.where(missing, NULL_POSITION, position)
    filled = np.where(missing, spec.default or 0.0, np.clip(values, *spec.range))
    shifted = np.log1p(np.maximum(filled, 0.0)) if spec.encoding == "log1p" else filled
    return np.clip((shifted - spec.mean) / spec.scale, -LARGEST, LARGEST).astype(np.float32)


def refuse_overflow(name: str, values: NDArray[np.float64], shifted: NDArray[np.float64]) -> None:
    """Refuse a feature whose spread, before or after its logarithm, no float32 can hold.

    Raises:
        DataError: naming the feature and the largest value.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scale = shifted.std()
    if not np.isfinite(scale) or scale > np.finfo(np.float32).max:
        message = (
            f"feature {name!r} has values as large as {values[np.abs(values).argmax()]:g}, of which no standard "
            "deviation can be taken; mend the rows, bound the column, or use encoding: piecewise_linear"
        )
        raise DataError(message)


def as_float64(values: pa.Array, name: str, owner: str = "feature") -> NDArray[np.float64]:
    """A numeric, boolean or time column as float64 [rows]; null becomes NaN. Messages speak of ``OWNER 'NAME'``.

    Raises:
        DataError: another type, or an infinite value.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        # Milliseconds since 1970; what is finer is cut off.
        values = values.cast(
            pa.timestamp("ms", values.type.tz if pa.types.is_timestamp(values.type) else None), safe=False
        )
        values = values.cast(pa.int64())
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    if not (numeric or pa.types.is_null(values.type)):
        message = f"{owner} {name!r} takes numbers, but the column is {values.type}"
        raise DataError(message)
    # Whole numbers from 2**53 on become the nearest of those that float64 has.
    floats = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if np.isinf(floats).any():
        message = f"{owner} {name!r} has an infinite value; replace it by null or a bound"
        raise DataError(message)
    return np.asarray(floats, dtype=np.float64)


def _cut(values: pa.Array, max_length: int) -> tuple[pa.Array, NDArray[np.int64]]:
    """The last `max_length` values of each list, flat, and the lists' lengths."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = values.flatten()
    if lengths.size and int(lengths.max()) > max_length:
        places = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        is_last = places >= np.repeat(lengths - max_length, lengths)
        flat = flat.filter(pa.array(is_last))
        lengths = np.minimum(lengths, max_length)
    return flat, lengths
