"""How this project writes Parquet: page checksums on, beside the target first, then renamed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from contract.files import appearing

ROW_GROUP_ROWS = 65_536
T = TypeVar("T")
_AT_A_TIME = 65_536
"""Values that a column takes at a time; with Arrow's own 1,024 lists take a third longer."""
Compression = Literal["zstd", "lz4", "none"]


class AtomicWriter:
    """Write a Parquet file batch by batch; it appears under its name only when all went well."""

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        compression: Compression = "zstd",
        group_rows: int = ROW_GROUP_ROWS,
        *,
        statistics: bool | list[str] = True,
        durable: bool = True,
        repeating: list[str] | None = None,
    ) -> None:
        """Open a temporary file beside `path`; what only this process reads needs no compression, and is not `durable`.

        Only what is kept for training takes the time to look for repeated numbers, in all columns or the `repeating`;
        texts repeat anyway. Rows in random order need no `statistics` of their row groups.
        """
        dictionary = (repeating or True) if compression == "zstd" else _texts(schema)
        self._stack = ExitStack()
        partial = self._stack.enter_context(appearing(path, durable=durable))
        writer = pq.ParquetWriter(
            partial, schema, compression=compression, use_dictionary=dictionary, write_page_checksum=True,
            write_statistics=statistics, write_batch_size=_AT_A_TIME,
        )  # fmt: skip
        self._writer = self._stack.enter_context(writer)
        self._group_rows = group_rows
        self.rows = 0

    def write(self, table: pa.Table | pa.RecordBatch) -> None:
        """Append rows, as row groups of at most `group_rows`."""
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        self._writer.write_table(table, row_group_size=self._group_rows)
        self.rows += len(table)

    def __enter__(self) -> Self:
        """Use as a context: leaving it normally publishes the file, an exception removes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush to disk and rename, or clean up."""
        self._stack.__exit__(kind, error, trace)


def _texts(schema: pa.Schema) -> list[str]:
    """The paths of columns of strings and of lists of strings."""
    plain = [field.name for field in schema if pa.types.is_string(field.type)]
    lists = [field for field in schema if pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type)]
    return plain + [f"{field.name}.list.element" for field in lists]


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The items; the next is made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as worker:
        waiting = worker.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = worker.submit(next, items, None)
            yield item


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns of a local file, with their checksums; of a small file in half the time of `pyarrow.parquet.read_table`.

    Raises:
        OSError: a page is damaged.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read(columns=list(names))


def write_table(table: pa.Table, path: Path) -> None:
    """Write a whole table atomically."""
    with AtomicWriter(path, table.schema) as writer:
        writer.write(table)
