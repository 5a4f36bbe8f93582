"""What numba compiles answers as NumPy does, and where it is not installed NumPy answers."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.hashing import combine, hash_integers
from contract.schema import TaskSpec
from contract.score import LARGEST, Score, ScoreConfig
from features.online import compiled
from features.online.compiled import Kernels
from features.online.compiled_rows import CompiledRows
from features.online.online_table import OnlineTable

HASHES = st.integers(1, 2**64 - 1)


def plain() -> Kernels:
    return compiled.make(lambda function: function)


def both() -> list[Kernels]:
    found = compiled.kernels()
    return [plain()] if found is None else [plain(), found]


def table_of(keys: list[int]) -> OnlineTable:
    count = len(keys) + 1
    ids = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    dense = -np.arange(count, dtype=np.float32)[:, None]
    return OnlineTable(np.array(keys, np.uint64), ids, dense, np.zeros((count, 0), np.uint64))


def copied(kernels: Kernels, table: OnlineTable, keys: list[Any], rows: int) -> tuple[Any, ...]:
    ids, dense = np.full((rows, 3), 7, np.int64), np.full((rows, 2), 7, np.float32)
    places = np.array([2, 0]), np.array([1])
    with np.errstate(over="ignore"):
        found = CompiledRows(table, *places, kernels.fill).copy(keys, ids, dense)
    return *found, ids, dense


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
def test_whole_numbers_are_hashed_as_by_numpy(values: list[int]) -> None:
    array = np.array(values, np.int64)
    for kernels in both():
        with np.errstate(over="ignore"):
            assert kernels.hash(array).tolist() == hash_integers(array).tolist()


@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**20))
def test_candidates_are_scored_and_ordered_as_by_numpy_equal_ones_as_they_came(
    tasks: int, rows: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    values = chance.integers(-3, 4, (tasks, rows)).astype(np.float32) * np.float32(chance.choice([0.1, 3e37]))
    specs = [TaskSpec(name=f"t{place}", kind="regression") for place in range(tasks)]
    score = Score(ScoreConfig(weights={spec.name: float(chance.normal()) * 10 for spec in specs}), specs)
    expected = score({spec.name: each for spec, each in zip(specs, values, strict=True)})
    for kernels in both():
        scores, order = kernels.order(values, score.weights_T, LARGEST)
        assert scores.tolist() == expected.tolist()
        assert order.tolist() == np.argsort(-expected, kind="stable").tolist()


@given(st.sets(HASHES, max_size=80), st.integers(0, 2**20))
def test_rows_are_found_and_copied_as_by_numpy(keys: set[int], seed: int) -> None:
    table = table_of(sorted(keys))
    wanted = np.random.default_rng(seed).permutation(np.array([0, 5, *sorted(keys)], np.uint64))
    rows, known = table.find(wanted)
    for kernels in both():
        found_rows, found_known, ids, dense = copied(kernels, table, [wanted], len(wanted))
        assert (found_rows.tolist(), found_known.tolist()) == (rows.tolist(), known.tolist())
        assert ids[:, [2, 0]].tolist() == table.ids[rows].tolist()
        assert (ids[:, 1] == 7).all()
        assert dense[:, 1].tolist() == table.dense[rows, 0].tolist()


@pytest.mark.parametrize("step", [1, 2**20, 2**44])
def test_keys_that_crowd_one_bucket_are_found(step: int) -> None:
    table = table_of([number * step for number in range(1, 200)])
    for kernels in both():
        assert copied(kernels, table, [table.keys], 199)[0].tolist() == list(range(199))
        assert not copied(kernels, table, [table.keys + np.uint64(500 * step)], 199)[1].any()


@given(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=2, max_size=9), st.integers(2, 3))
def test_tuples_of_keys_are_combined_of_which_one_may_serve_all_rows(rows: list[list[int]], width: int) -> None:
    parts = [np.array(column, np.uint64) for column in list(zip(*rows, strict=True))[:width]]
    parts[0] = parts[0][:1]
    together = combine(parts)
    table = table_of(sorted(set(together.tolist()) - {0}))
    for kernels in both():
        assert copied(kernels, table, parts, len(rows))[0].tolist() == table.find(together)[0].tolist()


def test_without_numba_numpy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    whole: Callable[[], Any] = compiled._load.__wrapped__
    assert whole() is None


def test_a_block_without_the_compiler_makes_encoders_of_numpy() -> None:
    with compiled.without_compiler():
        assert compiled.kernels() is None
    assert compiled.kernels() is compiled.kernels()
