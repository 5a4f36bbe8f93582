"""Batches on their way to the device."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.inputs import Batch, Stretch
from contract.schema import Schema
from features.batches import BatchReader
from pipeline.training.device_copies import BatchTensors, DeviceCopies, Packed
from tests.models.small import lean_schema, small_schema
from tests.pipeline.tiny_features import write_features

SCHEMA = small_schema()


@pytest.fixture
def batches(tmp_path: Path) -> list[Batch]:
    return list(BatchReader(write_features(tmp_path, SCHEMA, train_rows=300) / "train", SCHEMA, 64).epoch())


def alone(batches: list[Batch]) -> Iterator[Stretch]:
    return (Stretch(batch, (batch.rows,)) for batch in batches)


def test_on_the_cpu_arrays_are_used_where_they_lie(batches: list[Batch]) -> None:
    copies = DeviceCopies(torch.device("cpu"), users=True)
    assert [id(batch) for batch in copies.ahead(alone(batches))] == [id(batch) for batch in batches]
    found = copies.take(batches[0])
    assert found.labels_BT.data_ptr() == batches[0].labels.ctypes.data
    assert found.users_B is not None
    np.testing.assert_array_equal(found.users_B.numpy().view(np.uint64), batches[0].user)


@pytest.mark.parametrize(
    ("schema", "sizes"), [(lean_schema(), [(64, 64), (64, 64), (44,)]), (SCHEMA, [(64,)] * 4 + [(44,)])]
)
def test_batches_that_come_together_are_those_of_an_epoch(
    tmp_path: Path, schema: Schema, sizes: list[tuple[int, ...]]
) -> None:
    """Where rows have lists they come one at a time."""
    reader = BatchReader(write_features(tmp_path, schema, train_rows=300) / "train", schema, 64, seed=1)
    stretches = list(reader.stretches(1, rows=150))
    assert [stretch.sizes for stretch in stretches] == sizes
    found = list(DeviceCopies(torch.device("cpu")).ahead(iter(stretches)))
    for batch, expected in zip(found, reader.epoch(1), strict=True):
        pairs = zip(
            BatchTensors.of(batch, users=True).tensors(), BatchTensors.of(expected, users=True).tensors(), strict=True
        )
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_batch_with_lists_is_not_cut(batches: list[Batch]) -> None:
    with pytest.raises(ValueError, match="lists"):
        batches[0].between(0, 8)


def test_a_packed_batch_is_found_again_in_a_copy_of_its_bytes(batches: list[Batch]) -> None:
    tensors = BatchTensors.of(batches[0], users=True)
    packed = Packed.of_batch(tensors, pinned=False)
    copied = packed.of(packed.memory.clone())
    for found, expected in zip(copied.tensors.tensors(), tensors.tensors(), strict=True):
        assert torch.equal(found, expected)
        assert found.data_ptr() % 8 == copied.memory.data_ptr() % 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_each_batch_arrives_whole_on_the_card_and_in_order(batches: list[Batch]) -> None:
    device = torch.device("cuda", 0)
    copies = DeviceCopies(device, users=True)
    seen = 0
    for batch, expected in zip(copies.ahead(alone(batches)), batches, strict=True):
        assert batch is expected
        for found, wanted in zip(
            copies.take(batch).tensors(), BatchTensors.of(batch, users=True).tensors(), strict=True
        ):
            assert found.is_cuda
            assert torch.equal(found.cpu(), wanted)
        seen += 1
    assert seen == len(batches)
    assert torch.equal(copies.take(batches[0]).labels_BT.cpu(), torch.from_numpy(batches[0].labels))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_that_are_sent_together_arrive_as_they_are(tmp_path: Path) -> None:
    reader = BatchReader(write_features(tmp_path, lean_schema(), train_rows=300) / "train", lean_schema(), 64)
    copies, expected = DeviceCopies(torch.device("cuda", 0)), list(reader.epoch())
    for batch, wanted in zip(copies.ahead(reader.stretches(rows=128)), expected, strict=True):
        tensors = zip(copies.take(batch).tensors(), BatchTensors.of(wanted, users=False).tensors(), strict=True)
        assert all(torch.equal(found.cpu(), tensor) for found, tensor in tensors)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_epoch_that_was_left_does_not_disturb_the_next(batches: list[Batch]) -> None:
    copies = DeviceCopies(torch.device("cuda", 0))
    left = copies.ahead(alone(batches))
    next(left)
    del left
    for batch in copies.ahead(alone(batches)):
        assert torch.equal(copies.take(batch).labels_BT.cpu(), torch.from_numpy(batch.labels))
