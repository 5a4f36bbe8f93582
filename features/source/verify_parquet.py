"""Look at raw Parquet before an engine does: readable, of one schema, and every page as it was written.

An engine that skips page checksums answers a flipped bit with another number; reading each page once, with its
checksum, turns it into an error that names file, row group and column.
"""

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError

WHOLE_GROUP_BYTES = 256 * 1024 * 1024
"""Row groups up to this size are read at once, larger ones column by column."""


def check_files(
    files: list[str],
    filesystem: Any,
    where: str,
    *,
    pages: bool,
    columns: Collection[str] | None = None,
    intact: Collection[str] = (),
) -> None:
    """Check the files of one table; `columns`: of which the pages are read (None: of all), but not of `intact` files.

    Raises:
        DataError: a file that is not Parquet, whose schema is not the first file's, or with a damaged page.
    """
    first: pa.Schema | None = None
    for path in files:
        file = _open(path, filesystem, where)
        with file:
            if first is None:
                first = file.schema_arrow
            _check_schema(file.schema_arrow, first, path, files[0], where)
            if pages and path not in intact:
                names = file.schema_arrow.names
                _check_pages(file, path, [n for n in names if columns is None or n in columns], where)


def _open(path: str, filesystem: Any, where: str) -> pq.ParquetFile:
    try:
        source = path if filesystem is None else filesystem.open(path, "rb")
        return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
    except (OSError, pa.ArrowException) as error:
        message = f"{where}: {path} cannot be read as Parquet: {_first_line(error)}"
        raise DataError(message) from error


def _check_schema(schema: pa.Schema, first: pa.Schema, path: str, first_path: str, where: str) -> None:
    """Refuse drift between the files of a table, by name."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        message = f"{where}: {path} has the column {twice[0]!r} twice; give each column its own name"
        raise DataError(message)
    for name in dict.fromkeys([*first.names, *schema.names]):
        here = schema.field(name).type if name in schema.names else None
        there = first.field(name).type if name in first.names else None
        if here != there:
            message = (
                f"{where}: column {name!r} is {here or 'missing'} in {path}, but {there or 'missing'} in {first_path}; "
                "all files of a table need one schema: rewrite the files that differ"
            )
            raise DataError(message)


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
