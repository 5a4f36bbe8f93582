"""Splits as datasets: parts are links to kept rows, the manifest tells what they are, and a day writes what is new."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from contract.dataset import EncodedDataset, EncodedWith
from contract.schema import Schema
from contract.sha256 import sha256_of
from features.incremental.splits import SPLIT_NAMES
from tests.features.incremental.test_increment import FEW, days, world
from tests.features.raw_world import DAYS, raw_tables

GROWING = {
    **FEW,
    "features": [{"name": "user"}, {"name": "surface"}, {"name": "age", "kind": "dense"}],
    "split": {"by": "time", "valid": "1d"},
    "grow": True,
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of which the last day came by itself."""
    directory = tmp_path_factory.mktemp("grown")
    for count in (DAYS - 1, DAYS):
        world(directory, days(raw_tables(), count), **GROWING)
    return directory


def test_a_part_is_the_kept_file_under_another_name(grown: Path) -> None:
    kept = {file.stat().st_ino for file in (grown / "features-days" / "encoded").glob("*.parquet")}
    parts = [file for split in ("train", "valid") for file in (grown / "features" / split).glob("*.parquet")]
    assert len(parts) >= DAYS
    assert {file.stat().st_ino for file in parts} == kept


def test_no_column_of_a_part_says_that_it_has_nulls(grown: Path) -> None:
    for file in (grown / "features" / "train").glob("*.parquet"):
        assert not [field.name for field in pq.read_schema(file) if field.nullable]


def test_the_manifest_tells_rows_bytes_and_schema_of_each_part(grown: Path) -> None:
    schema = Schema.load(grown / "features")
    for split in SPLIT_NAMES:
        dataset = EncodedDataset.open(grown / "features" / split)
        assert dataset.manifest is not None
        dataset.require(schema)
        dataset.verify()
        for part in dataset.manifest.parts:
            file = grown / "features" / split / part.file
            assert part.rows == pq.read_metadata(file).num_rows
            assert part.sha256 == sha256_of(file)
            assert part.encoded_with == EncodedWith.read(pq.read_metadata(file).metadata)


def test_parts_of_earlier_days_name_the_schema_that_encoded_them(grown: Path) -> None:
    manifest = EncodedDataset.open(grown / "features" / "train").manifest
    assert manifest is not None
    schemas = [part.encoded_with.schema_fingerprint for part in manifest.parts]
    assert schemas[-1] == manifest.encoded_with.schema_fingerprint
    assert schemas[0] != schemas[-1]


def test_a_split_without_rows_is_one_empty_part(grown: Path) -> None:
    empty = EncodedDataset.open(grown / "features" / "test")
    assert (empty.rows, len(empty.files)) == (0, 1)
    assert empty.column_names == EncodedDataset.open(grown / "features" / "train").column_names


def test_where_links_are_impossible_parts_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    world(tmp_path, raw_tables(), **{**GROWING, "grow": False})
    parts = list((tmp_path / "features" / "train").glob("*.parquet"))
    assert parts
    assert all(part.stat().st_nlink == 1 for part in parts)
    EncodedDataset.open(tmp_path / "features" / "train").verify()


def test_pieces_without_their_facts_are_encoded_again(grown: Path) -> None:
    """A build that was killed between the two leaves pieces that nobody vouches for."""
    encoded = grown / "features-days" / "encoded"
    facts = min(encoded.glob("*.parts.json"))
    piece = next(encoded.glob(f"{facts.name.removesuffix('.parts.json')}.train.parquet"))
    before = piece.stat().st_ino
    facts.unlink()
    world(grown, raw_tables(), **GROWING)
    assert facts.is_file()
    assert piece.stat().st_ino != before
