"""Where a bundle's files hold rows of tables, so that deltas of versions ship rows.

An embedding table lies in the graph's own file, or beside it to be memory-mapped; either way its rows are plain bytes.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import external_data_helper

from serving.store.file_delta import RowSpan

LEAST_BYTES = 2**12
"""Smaller tensors are as quickly shipped as looked through."""


def table_rows(directory: Path) -> dict[str, list[RowSpan]]:
    """By file name of a bundle, the rows of all its matrices that are large enough."""
    rows_by_file: dict[str, set[RowSpan]] = {}
    for path in sorted(directory.glob("*.onnx")):
        content = path.read_bytes()
        for tensor in onnx.load_from_string(content).graph.initializer:
            matrix = len(tensor.dims) > 1 and tensor.dims[0] > 0
            if matrix and external_data_helper.uses_external_data(tensor):
                about = external_data_helper.ExternalDataInfo(tensor)
                size, offset = int(about.length or 0), int(about.offset or 0)
                if size >= LEAST_BYTES:
                    rows_by_file.setdefault(about.location, set()).add(_rows(offset, tensor.dims[0], size))
            elif matrix and len(tensor.raw_data) >= LEAST_BYTES:
                rows_by_file.setdefault(path.name, set()).add(
                    _rows(content.find(tensor.raw_data), tensor.dims[0], len(tensor.raw_data))
                )
    return {name: sorted(rows) for name, rows in rows_by_file.items()} | _online_rows(directory)


def _rows(offset: int, rows: int, size: int) -> RowSpan:
    return RowSpan(offset, rows, size // rows)


def _online_rows(directory: Path) -> dict[str, list[RowSpan]]:
    """The same of plain arrays, such as tables of users' features."""
    rows_by_file = {}
    for path in directory.rglob("*.npy"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.nbytes >= LEAST_BYTES and isinstance(array, np.memmap):
            rows = _rows(int(array.offset), array.shape[0], array.nbytes)
            rows_by_file[path.relative_to(directory).as_posix()] = [rows]
    return rows_by_file
