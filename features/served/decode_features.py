"""Served features back to values, and to what another version makes of the same values.

Ids go by the vocabularies, exactly. Numbers that both versions encode alike stay as they were to the bit; otherwise
they are decoded and re-encoded, which keeps what the first encoding kept: values within its range, to float32.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.hashing import hash_array
from contract.schema import DenseSpec, FeatureSpec, IdSpec
from features.encode.encoder import NULL_POSITION, Encoder

_FITTED = ("encoding", "edges", "mean", "scale", "default", "fill", "lowest", "highest")
"""What a number's encoding depends on."""


def decode_numbers(spec: DenseSpec, encoded: NDArray[np.float32]) -> NDArray[np.float64]:
    """Floats [rows] of encoded ones [rows]; NaN where a piecewise-linear one was null.

    Other encodings have put the median in the place of nulls, which stays there.
    """
    if spec.encoding == "piecewise_linear":
        values = np.interp(encoded, np.arange(len(spec.edges)), spec.edges) if spec.edges else np.zeros(len(encoded))
        return np.where(encoded == NULL_POSITION, np.nan, values)
    shifted = encoded.astype(np.float64) * spec.scale + spec.mean
    return np.expm1(shifted) if spec.encoding == "log1p" else shifted


def decode_feature(encoder: Encoder, spec: FeatureSpec, encoded: pa.Array) -> pa.Array:
    """Raw values [rows] of an encoded column; null where nothing but "unknown" or a hash was kept."""
    if isinstance(spec, DenseSpec):
        return pa.array(decode_numbers(spec, encoded.to_numpy()), from_pandas=True)
    if spec.kind == "id_list":
        return pa.ListArray.from_arrays(encoded.offsets, _decode_ids(encoder, spec, encoded.flatten()))
    return _decode_ids(encoder, spec, encoded)


def _decode_ids(encoder: Encoder, spec: IdSpec, rows: pa.Array) -> pa.Array:
    if spec.encoding == "hash":
        return pa.nulls(len(rows), pa.string() if spec.dtype == "string" else pa.int64())
    values = encoder.known_values(spec)
    # Row 0 has no value.
    return values.take(pc.if_else(pc.equal(rows, 0), None, pc.subtract(rows, 1)))


def can_translate(old: FeatureSpec, new: FeatureSpec) -> bool:
    """Whether what was encoded by one spec tells what the other makes of the same value."""
    if isinstance(old, DenseSpec) or isinstance(new, DenseSpec):
        return isinstance(old, DenseSpec) and isinstance(new, DenseSpec)
    if (old.kind, old.encoding, old.cross) != (new.kind, new.encoding, new.cross):
        return False
    return old.encoding != "hash" or (old.rows, old.table_name) == (new.rows, new.table_name)


def translate(old: FeatureSpec, source: Encoder, new: FeatureSpec, target: Encoder, encoded: pa.Array) -> pa.Array:
    """What `new` makes of the values that `old` encoded; see `can_translate`."""
    if isinstance(old, DenseSpec) and isinstance(new, DenseSpec):
        if all(getattr(old, name) == getattr(new, name) for name in _FITTED):
            return encoded
        return pa.array(target.numbers(new, decode_numbers(old, encoded.to_numpy())))
    if isinstance(old, DenseSpec) or isinstance(new, DenseSpec) or old.encoding == "hash":
        return encoded
    lookup = _row_of_row(old, source, new, target)
    if old.kind == "id":
        return pa.array(lookup[encoded.to_numpy()])
    lists = pa.ListArray.from_arrays(encoded.offsets, pa.array(lookup[encoded.flatten().to_numpy()]))
    return lists if new.max_length >= old.max_length else _last(lists, new.max_length)


def _row_of_row(old: IdSpec, source: Encoder, new: IdSpec, target: Encoder) -> NDArray[np.int32]:
    """By row of the old table the row of the same value in the new one [old rows]."""
    lookup = np.zeros(old.rows, dtype=np.int32)
    values = source.known_values(old)
    lookup[1:] = np.where(values.is_valid().to_numpy(zero_copy_only=False), target.rows(new, hash_array(values)), 0)
    if old.null_row and new.null_row:
        lookup[1] = 1
    if old.unknown_rows and (old.unknown_rows, old.null_row) == (new.unknown_rows, new.null_row):
        shared = slice(1 + old.null_row, 1 + old.null_row + old.unknown_rows)
        lookup[shared] = np.arange(shared.start, shared.stop)
    return lookup


def _last(lists: pa.Array, most: int) -> pa.Array:
    """Each list cut to its last values."""
    lengths = pc.list_value_length(lists).to_numpy()
    places = np.arange(len(lists.flatten())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = places >= np.repeat(lengths - most, lengths)
    offsets = np.append(0, np.cumsum(np.minimum(lengths, most))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), lists.flatten().filter(pa.array(kept)))
