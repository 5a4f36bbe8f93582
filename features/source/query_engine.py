"""The engines that run the feature expressions: DuckDB in this process, or Spark; what differs between them is here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.formats.pyarrow import PyArrowData

from contract.sha256 import sha256_of_bytes
from features.source.parquet_files import ROW_GROUP_ROWS, AtomicWriter
from features.source.spark_engine import (
    collect,
    connect_spark,
    frame_of,
    is_spark_overflow,
    number_rows,
    opened,
    read_spark,
    spark_errors,
    spark_hash,
    store,
    stream,
)

Backend = Any
"""An ibis backend: DuckDB's or PySpark's."""
LONGEST_LINE = 400
"""Letters of an engine's error that a message takes over."""


def connect(
    memory_limit: str, spill: Path, *, engine: str = "duckdb", master: str = "local[*]", threads: int | None = None
) -> Backend:
    """Open an engine that reads all times as UTC; DuckDB spills to `spill` beyond its memory limit.

    Raises:
        ConfigError: Spark is asked for, but PySpark is not installed.
    """
    if engine == "spark":
        return connect_spark(master, spill, memory_limit)
    connection = ibis.duckdb.connect(memory_limit=memory_limit, temp_directory=str(spill))
    connection.raw_sql("SET TimeZone = 'UTC'").fetchall()
    connection.raw_sql("SET preserve_insertion_order = true").fetchall()
    if threads is not None:
        connection.raw_sql(f"SET threads = {int(threads)}").fetchall()
    return connection


def disconnect(connection: Backend) -> None:
    """Close an engine, and of DuckDB let go of what was closed.

    A refusal's traceback keeps the tables of the frames it passed, and so their engine, to the end of the process,
    where DuckDB's library would call what is left of it a leak.
    """
    connection.disconnect()
    if not is_spark(connection):
        connection.con = None


def is_spark(connection: Backend) -> bool:
    """Whether this is Spark."""
    return bool(connection.name == "pyspark")


def materialise(connection: Backend, name: str, table: ir.Table) -> ir.Table:
    """Run an expression once and keep its rows for this connection under a name."""
    if is_spark(connection):
        return store(connection, name, table)
    return connection.create_table(name, table, temp=True)


def named(connection: Backend, name: str, table: ir.Table) -> ir.Table:
    """Give an expression a name, by which others take it: what ibis then translates stays short."""
    if is_spark(connection):
        return opened(connection, frame_of(connection, table), name)
    return named_query(connection, name, connection.compile(table))


def named_query(connection: Backend, name: str, text: str) -> ir.Table:
    """Give a query of DuckDB a name; ibis 12's own `sql` calls a method that DuckDB 2 no longer has."""
    connection.raw_sql(f"CREATE OR REPLACE TEMP VIEW {name} AS {text}").fetchall()
    return connection.table(name)


def numbered(connection: Backend, name: str, table: ir.Table, column: str, order: list[str], first: int) -> ir.Table:
    """Run an expression once, as `materialise`; its rows with their number, from `first` on, in an order or in any."""
    if is_spark(connection):
        return number_rows(connection, name, table, column, order, first)
    # DuckDB keeps the order of rows, and its own numbers of them need neither a column nor a window over all rows.
    stored = materialise(connection, name, table.order_by(order) if order else table)
    return stored.mutate(**{column: stored.rowid() + first})


def read_parquet(
    connection: Backend, files: Sequence[str], partitions: Mapping[str, str] | None = None, root: str = ""
) -> ir.Table:
    """Open Parquet files of one schema; `partitions`, types by name, are read from the folders below `root`."""
    if is_spark(connection):
        name = f"parquet_{sha256_of_bytes(chr(0).join(files).encode())[:16]}"
        return read_spark(connection, files, root, name)
    if not partitions:
        return connection.read_parquet(list(files), hive_partitioning=False)
    table = connection.read_parquet(list(files), hive_partitioning=True, hive_types_autocast=False)
    return table.mutate(**{name: table[name].cast(dtype) for name, dtype in partitions.items()})


def row_hash(connection: Backend, table: ir.Table, columns: Sequence[str]) -> ir.Value:
    """A hash of 64 bits of some columns of each row; the same columns need not hash alike on another engine."""
    if is_spark(connection):
        return spark_hash(table, columns)
    return ibis.struct({c: table[c] for c in columns}).hash()


def engine_errors() -> tuple[type[Exception], ...]:
    """What a query raises, on whichever engine."""
    return duckdb.Error, *spark_errors()


def is_overflow(error: Exception) -> bool:
    """Whether a query ended because a number was too large for its type."""
    if isinstance(error, duckdb.Error):
        return isinstance(error, duckdb.ConversionException | duckdb.OutOfRangeException)
    return is_spark_overflow(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a query of DuckDB needed more memory, or disk to spill to, than it may use."""
    return isinstance(error, duckdb.OutOfMemoryException)


def first_line(error: Exception) -> str:
    """What a query's error begins with; Spark writes out numbers of hundreds of digits."""
    line = str(error).splitlines()[0]
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def to_arrow(connection: Backend, table: ir.Table) -> pa.Table:
    """Run an expression; its rows in memory."""
    if is_spark(connection):
        return collect(connection, table)
    # As ibis's own `to_pyarrow`, which imports pandas and needs none of it.
    rows = connection.con.sql(connection.compile(table)).to_arrow_table()
    return PyArrowData.convert_table(rows, table.schema())


def record_batches(connection: Backend, table: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """Run an expression and stream its rows; ibis 12's own reader calls a method that DuckDB 2 no longer has."""
    if is_spark(connection):
        return stream(connection, table, rows)
    return iter(connection.con.sql(connection.compile(table)).to_arrow_reader(rows))


def save_parquet(connection: Backend, table: ir.Table, path: Path, *, durable: bool = True) -> None:
    """Run an expression; its rows as a file, there whole or not at all; `durable` if a later process reads it."""
    schema = table.schema().to_pyarrow()
    with AtomicWriter(path, schema, "lz4", durable=durable) as writer:
        for batch in record_batches(connection, table, ROW_GROUP_ROWS):
            # Sums of whole numbers come as decimals, though ibis calls them what they are stored as here.
            writer.write(pa.Table.from_batches([batch]).cast(schema))


def scalar(connection: Backend, value: ir.Value) -> Any:
    """Run an expression of one value."""
    return to_arrow(connection, value.as_table())[0][0].as_py()
