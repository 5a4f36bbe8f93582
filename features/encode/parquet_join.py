"""Join Parquet files into one by their row groups, whose bytes are copied as they are.

Only footers are read, and the offsets in them moved. Files have one schema and, as this project writes them, neither
encryption nor page indexes nor bloom filters.

Source of the fields: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from contract.errors import DataError
from contract.files import appearing
from features.encode.thrift import STOP, encoded, field_at, integer, list_at, list_of_structs, rewrite, skip

_MAGIC = b"PAR1"
_TAIL = 8
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_OFFSET = 1, 5
_CHUNK_OFFSET, _CHUNK_META = 2, 3
_PAGES = (9, 10, 11)
"""Where a column's data, index and dictionary pages begin."""


class _Footer(NamedTuple):
    """A footer's bytes in their order, and what lies between: the number of rows and the row groups."""

    before: bytes
    rows: int
    between: bytes
    groups: list[bytes]
    after: bytes


def join(files: Sequence[Path], target: Path, order: Callable[[int], Iterable[int]]) -> None:
    """Write the row groups of `files` into `target`, atomically.

    `order` gives the numbers of so many row groups, counted through the files, as readers are to meet them.

    Raises:
        DataError: a file that is not Parquet.
    """
    with appearing(target) as partial, partial.open("wb") as out:
        out.write(_MAGIC)
        footers = [_append(file, out) for file in files]
        groups = [group for footer in footers for group in footer.groups]
        first = footers[0]
        rows = encoded(sum(footer.rows for footer in footers))
        ordered = b"".join(groups[number] for number in order(len(groups)))
        data = first.before + rows + first.between + list_of_structs(len(groups)) + ordered + first.after
        out.write(data + len(data).to_bytes(4, "little") + _MAGIC)


def _append(file: Path, out: BinaryIO) -> _Footer:
    """Copy a file's pages and give its footer, as it is where they lie now."""
    with file.open("rb") as source:
        size = source.seek(0, os.SEEK_END)
        source.seek(max(0, size - _TAIL))
        tail = source.read()
        begin = size - _TAIL - int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or begin < len(_MAGIC):
            message = f"{file} is no Parquet file; remove it and build again"
            raise DataError(message)
        source.seek(begin)
        shift = out.tell() - len(_MAGIC)
        footer = _moved(source.read(), shift)
        source.seek(len(_MAGIC))
        # The footer comes along, which is what copying in one step costs, and what comes next is written over it.
        shutil.copyfileobj(source, out, 1 << 20)
        out.seek(shift + begin)
        out.truncate()
    return footer


def _moved(data: bytes, shift: int) -> _Footer:
    """Parse a footer, and move its offsets; 0 stands for none."""

    def move(offset: int) -> int:
        return offset + shift if offset > 0 else offset

    chunk = {_CHUNK_OFFSET: move, _CHUNK_META: dict.fromkeys(_PAGES, move)}
    edits = {_COLUMNS: chunk, _GROUP_OFFSET: move}
    rows, groups, begins, ends = 0, [], [], []
    at = field = 0
    while (header := data[at]) != STOP:
        field, kind, at = field_at(data, at, header, field)
        if field in {_NUM_ROWS, _ROW_GROUPS}:
            begins.append(at)
        if field == _ROW_GROUPS:
            count, at = list_at(data, at)
            for _ in range(count):
                group = bytearray()
                at = rewrite(data, at, edits, group)
                groups.append(bytes(group))
        elif field == _NUM_ROWS:
            rows, at = integer(data, at)
        else:
            at = skip(data, at, kind)
        if field in {_NUM_ROWS, _ROW_GROUPS}:
            ends.append(at)
    return _Footer(data[: begins[0]], rows, data[ends[0] : begins[1]], groups, data[ends[1] :])
