"""The engines that run the feature expressions: DuckDB in this process, or Spark; what differs between them is here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from contract.errors import ConfigError
from contract.sha256 import sha256_of_bytes
from features.source.parquet_files import ROW_GROUP_ROWS, AtomicWriter

Backend = Any
"""An ibis backend: DuckDB's or PySpark's."""


def connect(
    memory_limit: str, spill: Path, *, engine: str = "duckdb", master: str = "local[*]", threads: int | None = None
) -> Backend:
    """Open an engine that reads all times as UTC; DuckDB spills to `spill` beyond its memory limit.

    Raises:
        ConfigError: Spark is asked for, but PySpark is not installed.
    """
    if engine == "spark":
        return _connect_spark(master, spill)
    connection = ibis.duckdb.connect(memory_limit=memory_limit, temp_directory=str(spill))
    connection.raw_sql("SET TimeZone = 'UTC'").fetchall()
    connection.raw_sql("SET preserve_insertion_order = true").fetchall()
    if threads is not None:
        connection.raw_sql(f"SET threads = {int(threads)}").fetchall()
    return connection


def _connect_spark(master: str, spill: Path) -> Backend:
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 - an optional dependency of several hundred megabytes
    except ImportError as error:
        message = "data.engine is spark, but PySpark is not installed: pip install pyspark==4.3.0 (it needs Java 17)"
        raise ConfigError(message) from error
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(spill / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    builder = SparkSession.builder.master(master).appName("moerank features")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return ibis.pyspark.connect(builder.getOrCreate())


def is_spark(connection: Backend) -> bool:
    """Whether this is Spark."""
    return bool(connection.name == "pyspark")


def materialise(connection: Backend, name: str, table: ir.Table) -> ir.Table:
    """Run an expression once and keep its rows for this connection under a name."""
    if not is_spark(connection):
        return connection.create_table(name, table, temp=True)
    _session(connection).sql(connection.compile(table)).persist().createOrReplaceTempView(name)
    return connection.table(name)


def named(connection: Backend, name: str, table: ir.Table) -> ir.Table:
    """Give an expression a name, by which others take it: what ibis then translates stays short."""
    if is_spark(connection):
        _session(connection).sql(connection.compile(table)).createOrReplaceTempView(name)
    else:
        connection.raw_sql(f"CREATE TEMP VIEW {name} AS {connection.compile(table)}").fetchall()
    return connection.table(name)


def numbered(connection: Backend, name: str, table: ir.Table, column: str, order: list[str], first: int) -> ir.Table:
    """Run an expression once, as `materialise`; its rows with their number, from `first` on, in an order or in any."""
    if is_spark(connection):
        numbers = ibis.row_number().over(order_by=order or table.columns[0]) + first
        return materialise(connection, name, table.mutate(**{column: numbers}))
    # DuckDB keeps the order of rows, and its own numbers of them need neither a column nor a window over all rows.
    stored = materialise(connection, name, table.order_by(order) if order else table)
    return stored.mutate(**{column: stored.rowid() + first})


def read_parquet(
    connection: Backend, files: Sequence[str], partitions: Mapping[str, str] | None = None, root: str = ""
) -> ir.Table:
    """Open Parquet files of one schema; `partitions`, types by name, are read from the folders below `root`."""
    if is_spark(connection):
        reader = _session(connection).read.option("basePath", root or files[0].rpartition("/")[0])
        name = f"parquet_{sha256_of_bytes(chr(0).join(files).encode())[:16]}"
        frame = reader.parquet(*files)
        frame.createOrReplaceTempView(name)
        table = connection.table(name)
        # ibis gives both of Spark's types of time no zone; TimestampType is the one that means a moment.
        moments = [c.name for c in frame.schema if c.dataType.typeName() == "timestamp"]
        return table.mutate(**{c: table[c].cast("timestamp('UTC')") for c in moments}) if moments else table
    if not partitions:
        return connection.read_parquet(list(files), hive_partitioning=False)
    table = connection.read_parquet(list(files), hive_partitioning=True, hive_types_autocast=False)
    return table.mutate(**{name: table[name].cast(dtype) for name, dtype in partitions.items()})


def _session(connection: Backend) -> Any:
    return connection._session  # noqa: SLF001 - ibis offers no public way to its session


def to_arrow(connection: Backend, table: ir.Table) -> pa.Table:
    """Run an expression; its rows in memory."""
    return connection.to_pyarrow(table)


def record_batches(connection: Backend, table: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """Run an expression and stream its rows; ibis 12's own reader calls a method that DuckDB 2 no longer has."""
    if is_spark(connection):
        return iter(connection.to_pyarrow(table).to_batches(rows))
    return iter(connection.con.sql(ibis.to_sql(table, dialect="duckdb")).to_arrow_reader(rows))


def save_parquet(connection: Backend, table: ir.Table, path: Path) -> None:
    """Run an expression; its rows as a file, there whole or not at all."""
    schema = table.schema().to_pyarrow()
    with AtomicWriter(path, schema, "lz4") as writer:
        for batch in record_batches(connection, table, ROW_GROUP_ROWS):
            # Sums of whole numbers come as decimals, though ibis calls them what they are stored as here.
            writer.write(pa.Table.from_batches([batch]).cast(schema))


def scalar(connection: Backend, value: ir.Value) -> Any:
    """Run an expression of one value."""
    return connection.to_pyarrow(value).as_py()
