"""Batches of datasets of any shape: each row exactly once, with what belongs to it, for any parts, ranks and orders."""

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.inputs import Batch
from contract.schema import DenseSpec, IdSpec, Schema, TaskSpec
from features.batches import BatchReader
from features.epoch_order import Mixing
from tests.encoded_rows import write_dataset

SCHEMA = Schema(
    features=(
        IdSpec(name="item", kind="id", side="item", rows=1000),
        IdSpec(name="tags", kind="id_list", side="item", rows=1000, max_length=4),
        DenseSpec(name="age", side="user", encoding="standardise"),
    ),
    tasks=(TaskSpec(name="like", kind="binary"),),
)


class Shape(NamedTuple):
    """A dataset and how it is read."""

    parts: list[int]
    group_rows: int
    batch: int
    world: int
    seed: int | None
    mix_rows: bool
    by_user: bool
    skip: int
    least_rows: int
    mixing: Mixing


SHAPES = st.builds(
    Shape,
    parts=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    group_rows=st.integers(1, 12),
    batch=st.integers(1, 40),
    world=st.integers(1, 4),
    seed=st.none() | st.integers(0, 99),
    mix_rows=st.booleans(),
    by_user=st.booleans(),
    skip=st.integers(0, 3),
    least_rows=st.integers(1, 3),
    # Windows of few rows, so that a dataset has several.
    mixing=st.builds(Mixing, window=st.integers(1, 60), block=st.integers(1, 6), stretch=st.integers(1, 90)),
)


def rows_numbered(begin: int, end: int) -> pa.Table:
    """Rows whose every column tells their number; row n has n % 4 tags."""
    number = np.arange(begin, end)
    return pa.table(
        {
            "item": number.astype(np.int32),
            "tags": pa.array([[n] * (n % 4) for n in number.tolist()], pa.list_(pa.int32())),
            "age": number.astype(np.float32),
            "label__like": number.astype(np.float32),
            "weight__like": np.ones(end - begin, np.float32),
            "__user": number.astype(np.uint64),
            "__item": number.astype(np.uint64),
        }
    )


def numbers_of(batch: Batch) -> list[int]:
    """The rows of a batch by their item, whose other columns must tell the same."""
    number = batch.inputs.candidate.ids[:, 0]
    assert np.array_equal(batch.inputs.request.dense[:, 0], number)
    assert np.array_equal(batch.labels[:, 0], number)
    assert np.array_equal(batch.user, number)
    assert np.array_equal(batch.inputs.candidate.list_lengths[0], number % 4)
    assert np.array_equal(batch.inputs.candidate.list_values, np.repeat(number, number % 4))
    return [int(n) for n in number]


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_each_row_comes_exactly_once_and_in_the_same_batch_on_any_number_of_ranks(
    tmp_path_factory: pytest.TempPathFactory, shape: Shape
) -> None:
    ends = np.cumsum([0, *shape.parts]).tolist()
    tables = [rows_numbered(begin, end) for begin, end in itertools.pairwise(ends)]
    path: Path = tmp_path_factory.mktemp("shape") / "train"
    write_dataset(path, tables, SCHEMA, group_rows=shape.group_rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.batches.MIXING", shape.mixing)
        check_batches(path, shape, ends[-1])


def check_batches(path: Path, shape: Shape, rows: int) -> None:
    """Each row once, the same from any position on, and the same on all ranks together."""

    def batches(rank: int, world: int, start: int = 0) -> list[list[int]]:
        """The rows of each batch that are this rank's own."""
        reader = BatchReader(
            path, SCHEMA, shape.batch, rank=rank, world=world, seed=shape.seed, mix_rows=shape.mix_rows,
            by_user=shape.by_user, least_rows=shape.least_rows,
        )  # fmt: skip
        # All are held before the first is looked at: none may be written over.
        read = [numbers_of(batch) for batch in list(reader.epoch(1, start))]
        assert len(read) == len(reader.bounds(start))
        return [rows[reader.repeated(begin) :] for begin, rows in zip(reader.bounds(start), read, strict=True)]

    whole = batches(0, 1)
    assert sorted(itertools.chain(*whole)) == list(range(rows))
    assert all(len(batch) == shape.batch for batch in whole[:-1])
    # A last batch may be larger, as it takes in a rest: a position is told in rows that were read.
    read = sum(map(len, whole[: shape.skip]))
    assert batches(0, 1, read) == whole[shape.skip :]
    ranks = [batches(rank, shape.world) for rank in range(shape.world)]
    assert [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)] == whole
