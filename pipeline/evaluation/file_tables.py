"""The rows of a table that any tool wrote, as Parquet, CSV or TSV, a stretch at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from contract.errors import DataError

STRETCH_ROWS = 1 << 18
_TEXT = {".csv", ".tsv"}


def file_tables(path: Path) -> Iterator[pa.Table]:
    """A file's rows, a stretch at a time; at least one table, which may be empty.

    Raises:
        DataError: neither Parquet nor, by its name, CSV or TSV.
    """
    empty = True
    try:
        if path.suffix in _TEXT:
            options = pa.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ",")
            with pa.csv.open_csv(path, parse_options=options) as reader:
                for batch in reader:
                    yield _with_nulls(pa.Table.from_batches([batch]))
            return
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(STRETCH_ROWS):
                yield pa.Table.from_batches([batch], file.schema_arrow)
                empty = False
            if empty:
                yield file.schema_arrow.empty_table()
    except (OSError, pa.ArrowInvalid) as error:
        kind = "a table of text" if path.suffix in _TEXT else "Parquet"
        message = f"{path} cannot be read as {kind}: {error}"
        raise DataError(message) from error


def _with_nulls(table: pa.Table) -> pa.Table:
    """Rows of a CSV, where nothing between two commas is a missing id and not one of no letters."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(place)
            table = table.set_column(place, field, pc.if_else(pc.equal(column, ""), None, column))
    return table


def file_column(path: Path, name: str) -> pa.ChunkedArray:
    """A column of all rows of a file, or of a directory of Parquet.

    Raises:
        KeyError, pyarrow.ArrowInvalid: there is no such column.
        DataError: as `file_tables`.
    """
    if path.suffix in _TEXT:
        return pa.chunked_array([chunk for table in file_tables(path) for chunk in table[name].chunks])
    return pq.read_table(path, columns=[name])[name]
