"""Encoded rows in a directory of parts or in one file: found, told apart, compared with a schema, verified."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from contract.dataset import DATASET_MANIFEST, DatasetManifest, EncodedDataset, OpenParts
from contract.errors import DataError, IntegrityError, SchemaMismatchError
from contract.schema import Schema, TaskSpec
from tests.encoded_rows import stamped, write_dataset

SCHEMA = Schema(features=(), tasks=(TaskSpec(name="like", kind="binary"),))
OTHER = Schema(features=(), tasks=(TaskSpec(name="like", kind="binary", base_rate=0.5),))
SIZES = (250, 40, 330)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Three parts in row groups of 100; `row` counts through them."""
    ends = np.cumsum(SIZES)
    tables = [
        pa.table({"row": np.arange(end - size, end), "x": np.zeros(size)})
        for end, size in zip(ends, SIZES, strict=True)
    ]
    return write_dataset(tmp_path / "test", tables, SCHEMA, group_rows=100)


def test_every_row_is_read_once_and_the_first_ones_are_of_all_parts(split: Path) -> None:
    dataset = EncodedDataset.open(split)
    rows = dataset.read(["row"])["row"].to_numpy()
    assert dataset.rows == len(rows) == sum(SIZES)
    assert sorted(rows) == list(range(sum(SIZES)))
    assert rows.tolist() != list(range(sum(SIZES)))
    assert dataset.read(["row"], most=150)["row"].to_pylist() == rows[:150].tolist()
    assert {group.file for group in dataset.row_groups[:3]} == {0, 2}, "the second part is small"


def test_row_groups_come_in_the_order_asked_for(split: Path) -> None:
    dataset = EncodedDataset.open(split)
    groups = [dataset.row_groups[place] for place in (5, 0, 3, 1)]
    apart = [dataset.read_groups([group], ["row"])["row"].to_pylist() for group in groups]
    assert dataset.read_groups(groups, ["row"])["row"].to_pylist() == [row for rows in apart for row in rows]
    assert dataset.read_groups([], ["row"]).num_rows == 0


@pytest.mark.parametrize("most", [1, 64])
def test_files_that_stay_open_are_read_as_files_opened_anew(
    split: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenParts, "_MOST", most)
    dataset, opened = EncodedDataset.open(split), OpenParts()
    for _ in range(2):
        for group in dataset.row_groups:
            assert dataset.read_groups([group], ["row"], opened) == dataset.read_groups([group], ["row"])
    assert len(opened._files) == min(most, len(SIZES))


def test_parts_that_say_they_may_have_nulls_are_read_with_those_that_do_not(tmp_path: Path) -> None:
    table = pa.table({"row": np.arange(4)})
    without_nulls = table.cast(pa.schema([pa.field("row", pa.int64(), nullable=False)]))
    dataset = EncodedDataset.open(write_dataset(tmp_path / "test", [table, without_nulls], SCHEMA))
    assert dataset.read(["row"])["row"].to_pylist() == [*range(4)] * 2


def test_other_tools_read_the_parts_and_pass_over_the_manifest(split: Path) -> None:
    assert pyarrow.dataset.dataset(split).count_rows() == sum(SIZES)
    assert pq.read_table(split)["row"].to_pylist() == list(range(sum(SIZES)))


def test_rows_of_another_schema_are_refused_by_both_fingerprints(split: Path) -> None:
    EncodedDataset.open(split).require(SCHEMA)
    with pytest.raises(SchemaMismatchError, match=f"encoded with schema {SCHEMA.fingerprint()}.*{OTHER.fingerprint()}"):
        EncodedDataset.open(split).require(OTHER)


def test_a_file_that_says_its_schema_is_taken_and_one_that_does_not_is_refused(split: Path, tmp_path: Path) -> None:
    table = pq.read_table(split)
    pq.write_table(table, tmp_path / "mine.parquet")
    mine = EncodedDataset.open(tmp_path / "mine.parquet")
    mine.require(SCHEMA)
    assert mine.read(["row"])["row"].to_pylist() == list(range(sum(SIZES)))
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    with pytest.raises(DataError, match=r"bare\.parquet does not say what it was encoded with"):
        EncodedDataset.open(tmp_path / "bare.parquet").require(SCHEMA)


def test_the_file_that_a_split_once_was_is_refused_with_the_directorys_name(split: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"nothing at .*test\.parquet.*; use {split}$"):
        EncodedDataset.open(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet: there is nothing"):
        EncodedDataset.open(tmp_path / "none.parquet")


def test_a_directory_without_a_manifest_is_refused(split: Path) -> None:
    (split / DATASET_MANIFEST).unlink()
    with pytest.raises(DataError, match=f"{DATASET_MANIFEST} is missing"):
        EncodedDataset.open(split)


def test_a_part_that_was_exchanged_is_seen_when_it_is_opened(split: Path) -> None:
    pq.write_table(stamped(pa.table({"row": np.arange(40), "x": np.zeros(40)}), OTHER), split / "part-00001.parquet")
    with pytest.raises(IntegrityError, match=r"part-00001\.parquet is not the part"):
        EncodedDataset.open(split)
    (split / "part-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00001\.parquet cannot be read"):
        EncodedDataset.open(split)


def test_verifying_finds_a_flipped_byte_and_names_the_part(split: Path) -> None:
    EncodedDataset.open(split).verify()
    part = split / "part-00002.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"part-00002\.parquet is damaged"):
        EncodedDataset.open(split).verify()


def test_a_manifest_is_read_as_it_was_written(split: Path, tmp_path: Path) -> None:
    manifest = EncodedDataset.open(split).manifest
    assert manifest is not None
    manifest.save(tmp_path)
    assert DatasetManifest.model_validate_json((tmp_path / DATASET_MANIFEST).read_bytes()) == manifest
    assert [part.rows for part in manifest.parts] == list(SIZES)
