"""Batches hold every row once, whatever the batch size, the seed and the number of ranks."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedDataset, RowGroup
from contract.errors import DataError
from contract.inputs import Batch
from contract.schema import Schema
from features.batches import BatchReader


def rows_of(reader: BatchReader, epoch: int = 0) -> list[tuple[int, int, bytes]]:
    """Each row as its keys and its candidate columns."""
    rows = []
    for batch in reader.epoch(epoch):
        part = batch.inputs.candidate
        columns = np.concatenate([part.ids, part.list_lengths.T, part.dense.view(np.int32)], axis=1)
        rows += [(int(u), int(i), c.tobytes()) for u, i, c in zip(batch.user, batch.item, columns, strict=True)]
    return rows


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10_000])
def test_every_row_once_in_the_order_of_the_file(built: Path, batch_size: int) -> None:
    reader = BatchReader(built / "train", Schema.load(built), batch_size)
    rows = rows_of(reader)
    stored = pq.read_table(built / "train")
    assert [r[0] for r in rows] == stored["__user"].to_pylist()
    assert len(list(reader.epoch())) == reader.steps


def test_a_seed_permutes_rows_anew_each_epoch(built: Path) -> None:
    schema = Schema.load(built)
    reader = BatchReader(built / "train", schema, 32, seed=1)
    first, second = rows_of(reader, 0), rows_of(reader, 1)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(rows_of(BatchReader(built / "train", schema, 32)))
    assert first == rows_of(BatchReader(built / "train", schema, 32, seed=1), 0)


def test_rows_of_several_row_groups_are_mixed(built: Path, tmp_path: Path) -> None:
    table = pq.read_table(built / "train")
    group = np.arange(len(table)) // 25
    marked = table.set_column(table.column_names.index("__item"), "__item", [group.astype(np.uint64)])
    pq.write_table(marked, tmp_path / "groups.parquet", row_group_size=25)
    mixed, unmixed = (
        next(BatchReader(tmp_path / "groups.parquet", Schema.load(built), 25, seed=1, mix_rows=mix).epoch())
        for mix in (True, False)
    )
    assert len(np.unique(mixed.item)) > len(np.unique(group)) / 2
    assert len(np.unique(unmixed.item)) == 1


def test_a_users_rows_stand_together_and_users_change_places_by_epoch(built: Path) -> None:
    reader = BatchReader(built / "train", Schema.load(built), 10_000, seed=1, by_user=True)
    orders = []
    for epoch in (0, 1):
        (batch,) = reader.epoch(epoch)
        changes = int((batch.user[1:] != batch.user[:-1]).sum())
        assert changes == len(np.unique(batch.user)) - 1
        orders.append(list(dict.fromkeys(batch.user.tolist())))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_skipping_among_users_resumes_where_an_epoch_was_left(built: Path) -> None:
    for rank in (0, 1):
        path, schema = built / "train", Schema.load(built)
        reader = BatchReader(path, schema, 40, seed=3, by_user=True, rank=rank, world=2)
        whole, rest = list(reader.epoch(2)), list(reader.epoch(2, start=120))
        assert [b.user.tolist() for b in rest] == [b.user.tolist() for b in whole[3:]]


def test_skipping_resumes_where_an_epoch_was_left(built: Path) -> None:
    reader = BatchReader(built / "train", Schema.load(built), 50, seed=3)
    whole, rest = list(reader.epoch(2)), list(reader.epoch(2, start=150))
    assert len(rest) == len(whole) - 3
    assert np.array_equal(rest[0].inputs.request.ids, whole[3].inputs.request.ids)


@pytest.mark.parametrize("seed", [None, 3])
def test_a_stretch_is_the_batches_that_begin_in_it_and_reads_no_other_row_groups(
    built: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    reader = BatchReader(built / "train", Schema.load(built), 50, seed=seed)
    whole = list(reader.epoch())
    read, read_groups = [], EncodedDataset.read_groups

    def counting(dataset: EncodedDataset, groups: list[RowGroup], *others: Any) -> Any:
        read.extend(groups)
        return read_groups(dataset, groups, *others)

    monkeypatch.setattr(EncodedDataset, "read_groups", counting)
    stretch = list(reader.epoch(start=100, stop=200))
    assert [batch.user.tolist() for batch in stretch] == [batch.user.tolist() for batch in whole[2:4]]
    if seed is None:
        ends = np.cumsum([group.rows for group in reader.dataset.row_groups])
        assert len(read) == np.searchsorted(ends, 200) - np.searchsorted(ends, 100, side="right") + 1


def own_users(reader: BatchReader, begin: int, batch: Batch) -> list[int]:
    return [int(user) for user in batch.user[reader.repeated(begin) :]]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_read_equally_long_parts_of_the_same_batches(built: Path, world: int) -> None:
    path, schema = built / "train", Schema.load(built)
    readers = [BatchReader(path, schema, 32, seed=5, rank=r, world=world, least_rows=world) for r in range(world)]
    whole = BatchReader(path, schema, 32, seed=5, least_rows=world)
    epochs = zip(whole.bounds(), whole.epoch(), *(reader.epoch() for reader in readers), strict=True)
    for begin, batch, *parts in epochs:
        assert len({part.rows for part in parts}) == 1
        users = [own_users(reader, begin, part) for reader, part in zip(readers, parts, strict=True)]
        assert list(chain.from_iterable(users)) == batch.user.tolist()
        dense = np.concatenate(
            [p.inputs.request.dense[r.repeated(begin) :] for r, p in zip(readers, parts, strict=True)]
        )
        np.testing.assert_array_equal(dense, batch.inputs.request.dense)


def test_another_number_of_ranks_goes_on_with_the_rows_that_are_left(built: Path) -> None:
    path, schema = built / "train", Schema.load(built)
    whole = rows_of(BatchReader(path, schema, 32, seed=5))
    seen: list[int] = []
    for rank in range(2):
        reader = BatchReader(path, schema, 32, seed=5, rank=rank, world=2)
        for begin, batch in zip(reader.bounds()[:3], reader.epoch(), strict=False):
            seen += own_users(reader, begin, batch)
    for rank in range(3):
        reader = BatchReader(path, schema, 32, seed=5, rank=rank, world=3, least_rows=3)
        for begin, batch in zip(reader.bounds(96), reader.epoch(start=96), strict=True):
            seen += own_users(reader, begin, batch)
    assert sorted(seen) == sorted(row[0] for row in whole)


@pytest.mark.parametrize(("rows_more", "sizes"), [(1, [50, 51]), (7, [50, 57]), (8, [50, 50, 8]), (0, [50, 50])])
def test_a_short_rest_joins_the_batch_before_it(built: Path, tmp_path: Path, rows_more: int, sizes: list[int]) -> None:
    table = pq.read_table(built / "train").slice(0, 100 + rows_more)
    pq.write_table(table, tmp_path / "rows.parquet")
    reader = BatchReader(tmp_path / "rows.parquet", Schema.load(built), 50, seed=1, least_rows=8)
    assert [batch.rows for batch in reader.epoch()] == sizes
    assert reader.steps == len(sizes)
    assert [reader.batch_end(begin) - begin for begin in reader.bounds()] == sizes
    assert sorted(rows_of(reader)) == sorted(rows_of(BatchReader(tmp_path / "rows.parquet", Schema.load(built), 500)))


def test_lists_travel_with_their_rows(built: Path) -> None:
    schema = Schema.load(built)
    names = [spec.name for spec in schema.candidate.lists]
    stored = pq.read_table(built / "train", columns=names)
    batches = list(BatchReader(built / "train", schema, 33).epoch())
    for place, name in enumerate(names):
        values, lengths = [], []
        for batch in batches:
            part = batch.inputs.candidate
            ends = np.concatenate([[0], np.cumsum(part.list_lengths.sum(axis=1))])
            values.append(part.list_values[ends[place] : ends[place + 1]])
            lengths.append(part.list_lengths[place])
        flat = np.concatenate(values).tolist()
        assert flat == [v for row in stored[name].to_pylist() for v in row]
        assert np.concatenate(lengths).tolist() == [len(row) for row in stored[name].to_pylist()]


def test_dense_values_are_finite_and_positions_lie_within_their_bins(built: Path) -> None:
    schema = Schema.load(built)
    (batch,) = BatchReader(built / "train", schema, 10_000).epoch()
    for place, spec in enumerate(schema.request.dense):
        column = batch.inputs.request.dense[:, place]
        assert np.isfinite(column).all()
        assert column.min() >= -1.0
        assert column.max() <= max(spec.bins, 0)


def test_a_file_of_another_schema_is_refused(built: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(built / "train").drop(["age"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="'age'"):
        BatchReader(tmp_path / "x.parquet", Schema.load(built), 8)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        BatchReader(tmp_path / "y.parquet", Schema.load(built), 8)
