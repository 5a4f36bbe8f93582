"""Join Parquet files into one by their row groups, whose bytes are copied as they are.

Only footers are read, and the offsets in them moved. Files have one schema and, as this project writes them, neither
encryption nor page indexes nor bloom filters.

Source of the fields: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from features.errors import DataError
from features.files import appearing
from features.thrift import Fields, Reader, Writer

_MAGIC = b"PAR1"
_TAIL = 8
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _GROUP_OFFSET = 1, 5
_CHUNK_OFFSET, _CHUNK_META = 2, 3
_PAGES = dict.fromkeys((9, 10, 11))
"""Where a column's data, index and dictionary pages begin."""
_CHUNK = {_CHUNK_OFFSET: None, _CHUNK_META: _PAGES}
_FOOTER = {_NUM_ROWS: None, _ROW_GROUPS: {_COLUMNS: _CHUNK, _GROUP_OFFSET: None}}


def join(files: Sequence[Path], target: Path, order: Callable[[int], Iterable[int]]) -> None:
    """Write the row groups of `files` into `target`, atomically.

    `order` gives the numbers of so many row groups, counted through the files, as readers are to meet them.

    Raises:
        DataError: a file that is not Parquet.
    """
    with appearing(target) as partial, partial.open("wb") as out:
        out.write(_MAGIC)
        footers = [_append(file, out) for file in files]
        groups = [group for footer in footers for group in footer[_ROW_GROUPS][1]]
        joined = footers[0]
        _set(joined, _ROW_GROUPS, [groups[number] for number in order(len(groups))])
        _set(joined, _NUM_ROWS, sum(footer[_NUM_ROWS][1] for footer in footers))
        data = Writer().struct(joined).data
        out.write(data + len(data).to_bytes(4, "little") + _MAGIC)


def _append(file: Path, out: BinaryIO) -> Fields:
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
        footer = Reader(source.read()).struct(_FOOTER)
        shift = out.tell() - len(_MAGIC)
        source.seek(len(_MAGIC))
        # The footer comes along, which is what copying in one step costs, and what comes next is written over it.
        shutil.copyfileobj(source, out, 1 << 20)
        out.seek(shift + begin)
        out.truncate()
    for group in footer[_ROW_GROUPS][1]:
        _move(group, [_GROUP_OFFSET], shift)
        for chunk in group[_COLUMNS][1]:
            _move(chunk, [_CHUNK_OFFSET], shift)
            _move(chunk[_CHUNK_META][1], _PAGES, shift)
    return footer


def _set(fields: Fields, field: int, value: Any) -> None:
    """Give a field another value of its kind."""
    fields[field] = fields[field][0], value


def _move(fields: Fields, offsets: Iterable[int], shift: int) -> None:
    """Move offsets; 0 stands for none."""
    for field in offsets:
        if field in fields and fields[field][1] > 0:
            _set(fields, field, fields[field][1] + shift)
