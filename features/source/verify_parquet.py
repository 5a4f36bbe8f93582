"""Look at raw Parquet before an engine does: readable, and every page as it was written.

An engine that skips page checksums answers a flipped bit with another number; reading each page once, with its
checksum, turns it into an error that names file, row group and column.
"""

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError
from features.source.file_schemas import FileSchema, schema_of

WHOLE_GROUP_BYTES = 256 * 1024 * 1024
"""Row groups up to this size are read at once, larger ones column by column."""


def check_files(
    files: Sequence[str],
    filesystem: Any,
    where: str,
    *,
    pages: bool,
    columns: Collection[str] | None = None,
    intact: Collection[str] = (),
) -> list[FileSchema]:
    """The schemas of a table's files; `columns`: of which the pages are read (None: of all), but not of `intact` files.

    Raises:
        DataError: a file that is not Parquet, or with a damaged page.
    """
    schemas = []
    for path in files:
        with _open(path, filesystem, where) as file:
            schemas.append(schema_of(path, file))
            if pages and path not in intact:
                names = file.schema_arrow.names
                _check_pages(file, path, [n for n in names if columns is None or n in columns], where)
    return schemas


def _open(path: str, filesystem: Any, where: str) -> pq.ParquetFile:
    try:
        source = path if filesystem is None else filesystem.open(path, "rb")
        return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
    except (OSError, pa.ArrowException) as error:
        message = f"{where}: {path} cannot be read as Parquet: {_first_line(error)}"
        raise DataError(message) from error


def _check_pages(file: pq.ParquetFile, path: str, columns: list[str], where: str) -> None:
    for group in range(file.num_row_groups if columns else 0):
        whole = file.metadata.row_group(group).total_byte_size < WHOLE_GROUP_BYTES
        for part in [columns] if whole else [[c] for c in columns]:
            if _damage(file, group, part) is not None:
                message = f"{where}: {path} is damaged in row group {group}{_named(file, group, part)}; "
                raise DataError(message + "restore the file or write it again")


def _damage(file: pq.ParquetFile, group: int, columns: list[str]) -> str | None:
    """What is wrong with columns of a row group; None: nothing."""
    try:
        rows = file.read_row_group(group, columns=columns).num_rows
    except (OSError, pa.ArrowException, ValueError) as error:
        return _first_line(error)
    promised = file.metadata.row_group(group).num_rows
    return None if rows == promised else f"{rows} rows where the footer promises {promised}"


def _named(file: pq.ParquetFile, group: int, columns: list[str]) -> str:
    """Which of the columns it is, and what is wrong with it."""
    for column in columns:
        damage = _damage(file, group, [column])
        if damage is not None:
            return f", column {column!r}: {damage}"
    return f": {_damage(file, group, columns)}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
