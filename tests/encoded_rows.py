"""Encoded rows of a test's own making, as the build would leave them."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from contract.dataset import DatasetManifest, DatasetPart, EncodedWith
from contract.schema import Schema
from contract.sha256 import sha256_of


def stamped(table: pa.Table, schema: Schema) -> pa.Table:
    """The table, saying what it was encoded with."""
    return table.replace_schema_metadata(_encoded_with(schema).metadata())


def write_dataset(directory: Path, tables: Sequence[pa.Table], schema: Schema, group_rows: int = 700) -> Path:
    """Write one part a table."""
    directory.mkdir(parents=True)
    parts = []
    for number, table in enumerate(tables):
        file = directory / f"part-{number:05d}.parquet"
        pq.write_table(stamped(table, schema), file, row_group_size=group_rows, write_page_checksum=True)
        sha256, encoded_with = sha256_of(file), _encoded_with(schema)
        parts.append(DatasetPart(file=file.name, rows=len(table), sha256=sha256, encoded_with=encoded_with))
    DatasetManifest(encoded_with=_encoded_with(schema), parts=tuple(parts)).save(directory)
    return directory


def _encoded_with(schema: Schema) -> EncodedWith:
    return EncodedWith(schema_fingerprint=schema.fingerprint(), encoding="of a test")
