"""What a request's ids cost most, compiled by numba where that is installed: hash, look up, copy rows.

NumPy does the same in some twenty calls per table, whose fixed cost exceeds the work of a request with few candidates.
Shape legend: n rows, B buckets, F ids, D numbers.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from features.online.hash_index import WIDTH

LOG = logging.getLogger("moerank.features")
_PRIME, _GOLDEN = np.uint64(31), np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)
_NULL, _ONE = np.uint64(0), np.uint64(1)
_HALF, _HALF_SHIFT, _HALF_SIGN = np.uint32(0x7FFF), np.uint32(13), np.uint32(15)
_REBIAS, _WHOLE, _TWICE = np.float32(2.0**112), np.float32(1), np.float32(2)


class Kernels(NamedTuple):
    """Functions over arrays, which they neither keep nor check."""

    hash: Callable[..., Any]
    """As `contract.hashing.hash_integers`."""
    fill: Callable[..., None]
    """Looks up rows of a table by the hashes of one or two keys, and copies them; see `CompiledRows`."""
    sum: Callable[..., None]
    """Adds rows of a table to those of a matrix, or puts them there; see `ShareTables`."""
    sum_half: Callable[..., None]
    """The same of half-precision numbers, given as words of 16 bits."""
    order: Callable[..., Any]
    """Weighted sums of predictions, and the order that they put candidates in; see `serving.graph.ordering`."""


_ALLOWED = ContextVar("compiled look-ups", default=True)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Encoders made in this block use NumPy: loading numba takes a second, which few requests are not worth."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def kernels() -> Kernels | None:
    """The compiled functions, or None, which is logged once, where numba is not installed."""
    return _load() if _ALLOWED.get() else None


@cache
def _load() -> Kernels | None:
    try:
        import numba  # noqa: PLC0415 an extra, which takes half a second
    except ImportError:
        LOG.info("numba is not installed, so rows are looked up by NumPy; pip install 'moerank[native]' saves CPU")
        return None
    plain = make(numba.njit)
    signatures = _signatures(numba.types)
    # Compiled when the first model is opened, not when the first request comes; kept for the next process.
    return Kernels(*(numba.njit(one, cache=True)(each) for one, each in zip(signatures, plain, strict=True)))


def make(compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Kernels:
    """The functions in plain Python, calling smaller ones that are `compiled`."""
    mix_one, find_one = compiled(mixed), compiled(found_row)

    def hash_all(values_n: Any) -> Any:
        hashes_n = np.empty(values_n.shape[0], np.uint64)
        for place in range(values_n.shape[0]):
            key = mix_one(np.uint64(values_n[place]))
            hashes_n[place] = _ONE if key == _NULL else key
        return hashes_n

    def fill(  # noqa: PLR0913, PLR0917 arrays, for a compiler
        left: Any,
        right: Any,
        slot_hashes_B8: Any,
        slot_rows_B8: Any,
        ids: Any,
        ids_F: Any,
        dense: Any,
        dense_D: Any,
        unknown: Any,
        out_ids: Any,
        out_dense: Any,
        rows_n: Any,
        known_n: Any,
    ) -> None:
        # One loop per step: within each, the processor waits for the memory of many rows at once.
        keys_n = np.empty(rows_n.shape[0], np.uint64)
        for place in range(rows_n.shape[0]):
            key = left[place if left.shape[0] > 1 else 0]
            if right.shape[0]:
                other = right[place if right.shape[0] > 1 else 0]
                missing = key == _NULL or other == _NULL  # noqa: PLR1714 numba compiles it
                key = _NULL if missing else mix_one(key * _PRIME + other)
            keys_n[place] = key
        for place in range(rows_n.shape[0]):
            row = find_one(slot_hashes_B8, slot_rows_B8, keys_n[place])
            known_n[place] = row >= 0
            rows_n[place] = unknown if row < 0 else row
        for place in range(rows_n.shape[0]):
            row = rows_n[place]
            for column in range(ids_F.shape[0]):
                out_ids[place, ids_F[column]] = ids[row, column]
            for column in range(dense_D.shape[0]):
                out_dense[place, dense_D[column]] = dense[row, column]

    return Kernels(hash_all, fill, summing(compiled(as_it_is)), summing(compiled(widened)), in_order)


def summing(number: Any) -> Callable[..., None]:
    """A kernel that sums rows whose elements `number` makes numbers of."""

    def sum_rows(values: Any, scale: Any, rows_n: Any, total: Any, first: Any) -> None:
        for place in range(total.shape[0]):
            row = rows_n[place if rows_n.shape[0] > 1 else 0]
            step = scale[row if scale.shape[0] > 1 else 0]
            if first:
                for unit in range(total.shape[1]):
                    total[place, unit] = step * number(values[row, unit])
            else:
                for unit in range(total.shape[1]):
                    total[place, unit] += step * number(values[row, unit])

    return sum_rows


def in_order(values_TN: Any, weights_T: Any, largest: Any) -> Any:
    """As `contract.score.Score` of a weighted sum, within ±`largest`: the scores [N], and positions [N], best first."""
    scores_N = np.empty(values_TN.shape[1], np.float32)
    for place in range(values_TN.shape[1]):
        total = weights_T[0] * np.float64(values_TN[0, place])
        for task in range(1, values_TN.shape[0]):
            total += weights_T[task] * np.float64(values_TN[task, place])
        scores_N[place] = np.float32(min(max(total, -largest), largest))
    return scores_N, np.argsort(-scores_N, kind="mergesort").astype(np.uint32)


def as_it_is(value: Any) -> Any:
    """A byte or a number, as a number."""
    return np.float32(value)


def widened(word: Any) -> Any:
    """The number that a half-precision word stands for: its exponent's bias is 15, that of float32 is 127."""
    bits = np.uint32(word)
    size = np.uint32((bits & _HALF) << _HALF_SHIFT).view(np.float32) * _REBIAS
    return size * (_WHOLE - _TWICE * np.float32(bits >> _HALF_SIGN))


def mixed(word: Any) -> Any:
    """As `contract.hashing.mix`, for one word."""
    word = word + _GOLDEN
    word = (word ^ (word >> _SHIFT_1)) * _FIRST
    word = (word ^ (word >> _SHIFT_2)) * _SECOND
    return word ^ (word >> _SHIFT_3)


def found_row(slot_hashes_B8: Any, slot_rows_B8: Any, key: Any) -> Any:
    """As `HashIndex.find`, for one hash; -1 where it is not there."""
    last = np.uint64(slot_hashes_B8.shape[0] - 1)
    bucket = key & last
    for _ in range(slot_hashes_B8.shape[0] if key != _NULL else 0):
        place = WIDTH
        # Without a jump out of it, the eight comparisons are a few instructions, and no branch is guessed wrong.
        for slot in range(WIDTH):
            place = slot if slot_hashes_B8[bucket, slot] == key else place
        if place < WIDTH:
            return np.int64(slot_rows_B8[bucket, place])
        if slot_hashes_B8[bucket, WIDTH - 1] == _NULL:
            break
        bucket = (bucket + _ONE) & last
    return np.int64(-1)


def _signatures(types: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Of each kernel; a table's arrays are read only."""

    def table(kind: Any, dimensions: int = 2) -> Any:
        return types.Array(kind, dimensions, "C", readonly=True)

    def out(kind: Any, dimensions: int = 2) -> Any:
        return types.Array(kind, dimensions, "C")

    keys, places = types.Array(types.uint64, 1, "A", readonly=True), table(types.int64, 1)
    rows = (table(types.int32), places, table(types.float32), places, types.int64)
    outputs = (out(types.int64), out(types.float32), out(types.int64, 1), out(types.boolean, 1))

    def summed(kind: Any) -> Any:
        return types.void(table(kind), table(types.float32, 1), out(types.int64, 1), out(types.float32), types.boolean)

    sums = [summed(types.float32), summed(types.int8)]
    fill = types.void(keys, keys, table(types.uint64), table(types.int32), *rows, *outputs)
    ranked = types.Tuple((out(types.float32, 1), out(types.uint32, 1)))
    order = ranked(out(types.float32), table(types.float64, 1), types.float64)
    return out(types.uint64, 1)(table(types.int64, 1)), fill, sums, summed(types.uint16), order
