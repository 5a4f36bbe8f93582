"""Stable 64-bit hashes of ids: the same for a value on every machine, version and engine, without a loop over rows.

Integers of any width hash alike, and strings by their UTF-8 bytes. The mixer is SplitMix64's finaliser (Steele, Lea,
Flood 2014, "Fast splittable pseudorandom number generators").
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contract.errors import DataError

Hashes = NDArray[np.uint64]
NULL_HASH = np.uint64(0)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST = np.uint64(31)
_PLAIN_ROUNDS = tuple((int(shift), int(factor)) for shift, factor in _ROUNDS)
_ALL = 2**64 - 1
_PRIME = np.uint64(31)
_WORD = 8
_LARGEST = 2.0**63
"""From here on a float is not an integer of 64 bits."""


def mix(values: Hashes) -> Hashes:
    """SplitMix64's finaliser, a bijection of 64-bit words [...]; arrays wrap around silently, as they should."""
    mixed = np.asarray(values + _GOLDEN)
    for shift, factor in _ROUNDS:
        mixed ^= mixed >> shift
        mixed *= factor
    mixed ^= mixed >> _LAST
    return mixed


def mix_word(word: int) -> int:
    """As `mix` for one word as a plain integer in [0, 2**64), which is cheaper than an array of one."""
    mixed = (word + int(_GOLDEN)) & _ALL
    for shift, factor in _PLAIN_ROUNDS:
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _ALL
    return mixed ^ (mixed >> int(_LAST))


def combine(parts: list[Hashes]) -> Hashes:
    """The hash of a tuple of keys [rows] from the hashes of its parts, of which some may be one for all rows.

    It is null if any part is null.
    """
    if all(part.size == 1 for part in parts):
        return np.full(parts[0].shape, _combine_words([int(part.item()) for part in parts]), dtype=np.uint64)
    result = parts[0]
    missing = result == NULL_HASH
    for part in parts[1:]:
        missing = missing | (part == NULL_HASH)
        result = mix(result * _PRIME + part)
    return np.where(missing, NULL_HASH, result)


def _combine_words(words: list[int]) -> int:
    """As `combine` for one row, without the fixed cost of arrays."""
    result = words[0]
    for word in words[1:]:
        result = mix_word((result * int(_PRIME) + word) & _ALL)
    return result if all(words) else int(NULL_HASH)


def hash_integers(values: NDArray[np.int64]) -> Hashes:
    """Hash whole numbers [rows], as `hash_array` does."""
    if values.size == 1:
        return np.array([hash_integer(int(values[0]))], dtype=np.uint64)
    return np.maximum(mix(values.view(np.uint64)), np.uint64(1))


def hash_integer(value: int) -> int:
    """Hash one whole number of 64 bits, signed or not, as `hash_integers` does, without the fixed cost of arrays."""
    return mix_word(value & _ALL) or 1


def hash_text(text: str) -> int:
    """Hash one string, as `hash_array` does, without the fixed cost of arrays."""
    data = text.encode()
    total = 0
    for place in range(0, len(data), _WORD):
        total += mix_word(int.from_bytes(data[place : place + _WORD], "little") ^ mix_word(place // _WORD))
    return mix_word((total & _ALL) ^ mix_word(len(data))) or 1


def hash_array(values: pa.Array | pa.ChunkedArray, name: str = "") -> Hashes:
    """Hash a column of integers, booleans, dates, whole floats or strings [rows]; null becomes `NULL_HASH`.

    Raises:
        DataError: a type that cannot be an id, or fractions; the message names the column if its name is given.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return np.zeros(len(values), dtype=np.uint64)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    hashed = _hash_strings(values) if _is_text(values.type) else _hash_integers(values, name)
    hashed[hashed == NULL_HASH] = np.uint64(1)
    if values.null_count:
        hashed[values.is_null().to_numpy(zero_copy_only=False)] = NULL_HASH
    return hashed


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _hash_integers(values: pa.Array, name: str) -> Hashes:
    kind = values.type
    if pa.types.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_floating(kind):
        values = pc.if_else(pc.is_finite(values), values, None)
        broken = pc.drop_null(values.filter(pc.not_equal(values, pc.trunc(values))))
        if len(broken):
            message = (
                f"the column {name!r} is a key, but has fractions such as {broken[0].as_py()!r}, which are not ids; "
                "make it whole (round(100 * x)) or a string"
            )
            raise DataError(message)
        inexact = values.filter(pc.greater_equal(pc.abs(values), float(2**53)))
        if len(inexact):
            message = (
                f"the column {name!r} is a key of fractions or decimals as large as {inexact[0].as_py():.17g}; beyond "
                "2**53 different ids become one: store them as whole numbers or texts"
            )
            raise DataError(message)
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        message = (
            f"the column {name!r} of type {kind} cannot be an id; allowed are integers, strings, booleans and dates"
        )
        raise DataError(message)
    whole = pc.fill_null(values.cast(pa.int64(), safe=False), 0).to_numpy(zero_copy_only=False)
    return mix(whole.astype(np.int64).view(np.uint64))


def _hash_strings(values: pa.Array) -> Hashes:
    """Sum of the mixed 8-byte words of each string, each tied to its place, mixed with the length."""
    binary = pc.fill_null(values, "").cast(pa.large_binary())
    offsets = np.frombuffer(binary.buffers()[1], dtype=np.int64)[binary.offset : binary.offset + len(binary) + 1]
    data = binary.buffers()[2]
    raw = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    lengths = np.diff(offsets)
    words = (lengths + _WORD - 1) // _WORD
    hashed: Hashes = np.zeros(len(binary), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(int(words.max(initial=0))):
            rows = np.flatnonzero(words > place)
            hashed[rows] += mix(_word_at(raw, offsets, lengths, rows, place) ^ mix(np.full(1, place, dtype=np.uint64)))
    return mix(hashed ^ mix(lengths.astype(np.uint64)))


def _word_at(
    raw: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int64], rows: NDArray[np.int64], place: int
) -> Hashes:
    """The little-endian 8-byte word number `place` of each of `rows`, padded with zero bytes."""
    reach = np.arange(_WORD, dtype=np.int64) + place * _WORD
    inside = reach[None, :] < lengths[rows, None]
    picked = np.where(inside, offsets[rows, None] + reach[None, :], 0)
    word = np.where(inside, raw[picked], np.uint8(0)).astype(np.uint8)
    return np.ascontiguousarray(word).view("<u8").reshape(-1).astype(np.uint64)
