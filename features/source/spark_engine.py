"""Spark's side of the engine: sessions, rows numbered by all executors, and results that stream to the driver.

What must not be computed twice, and what leaves Spark, goes through Parquet in a scratch folder, which the driver and
all executors must see under one path. Nothing is collected but counts and small tables.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import ConfigError
from features.source.spark_session import start_spark

LOCAL_PARTITIONS = 16
"""Parts that rows are shuffled into on one machine."""
_SCRATCH = "spark.moerank.scratch"
_NUMBER_BITS = 33
"""`monotonically_increasing_id` is a partition's number, and in these lower bits the row's number within it."""
_PLACE, _TASK, _SHIFT = "__place", "__task", "__shift"
_UNITS = {"TB": "t", "GB": "g", "MB": "m", "KB": "k"}


def connect_spark(master: str, spill: Path, memory_limit: str) -> Any:
    """A session on a master; `spill` takes what goes through files.

    A local master gets the memory limit, and keeps its shuffled rows below `spill`; those of a cluster are what
    ``spark-defaults.conf`` says.

    Raises:
        ConfigError: PySpark is not installed.
    """
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": str(spill / "warehouse"),
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        settings |= {
            "spark.driver.memory": _spark_size(memory_limit),
            "spark.local.dir": str(spill / "shuffled"),
            # Spark's own 200 are for clusters; a machine spends its time on starting them.
            "spark.sql.shuffle.partitions": str(LOCAL_PARTITIONS),
        }
    session = start_spark(master, "moerank features", settings, "data.engine is spark")
    session.sparkContext.setLogLevel("ERROR")
    session.conf.set(_SCRATCH, str(spill.absolute()))
    return ibis.pyspark.connect(session)


def _spark_size(memory_limit: str) -> str:
    """A memory limit as the JVM writes it: ``4GB`` is ``4g``."""
    number, unit = memory_limit[:-2].strip(), memory_limit[-2:].upper()
    if unit not in _UNITS or not number.isdigit():
        message = f"data.memory_limit is {memory_limit!r}; with engine spark it must be a whole number of MB or GB"
        raise ConfigError(message)
    return number + _UNITS[unit]


def spark_errors() -> tuple[type[Exception], ...]:
    """What a query on Spark raises; nothing where PySpark was never loaded."""
    if "pyspark" not in sys.modules:
        return ()
    from pyspark.errors import PySparkException  # noqa: PLC0415 - an optional extra

    # PySpark lets through what it has no name for; py4j comes with it, and is not a dependency of ours.
    return PySparkException, sys.modules["py4j.protocol"].Py4JError


def is_spark_overflow(error: Exception) -> bool:
    """Whether a number was too large for its type."""
    return any(name in str(error) for name in ("NUMERIC_VALUE_OUT_OF_RANGE", "ARITHMETIC_OVERFLOW", "CAST_OVERFLOW"))


def session_of(connection: Any) -> Any:
    """The session of an ibis backend."""
    return connection._session  # noqa: SLF001 - ibis offers no public way to its session


def frame_of(connection: Any, table: ir.Table) -> Any:
    """An expression as a data frame."""
    return session_of(connection).sql(connection.compile(table))


def opened(connection: Any, frame: Any, name: str) -> ir.Table:
    """A data frame under a name."""
    frame.createOrReplaceTempView(name)
    table = connection.table(name)
    # ibis gives both of Spark's types of time no zone; TimestampType is the one that means a moment.
    moments = [c.name for c in frame.schema if c.dataType.typeName() == "timestamp"]
    return table.mutate(**{c: table[c].cast("timestamp('UTC')") for c in moments}) if moments else table


def file_url(path: str) -> str:
    """A path as Spark takes it for a local file whatever file system the cluster reads by default."""
    return path if "://" in path else f"file://{Path(path).absolute()}"


def read_spark(connection: Any, files: Sequence[str], root: str, name: str) -> ir.Table:
    """Parquet files of one schema under a name; folders below `root` are partitions."""
    reader = session_of(connection).read.option("basePath", file_url(root or files[0].rpartition("/")[0]))
    return opened(connection, reader.parquet(*map(file_url, files)), name)


def number_rows(connection: Any, name: str, table: ir.Table, column: str, order: list[str], first: int) -> ir.Table:
    """The rows with their number from `first` on, in an order or in any, written once.

    Each task numbers its own rows as it writes them, and a task's rows begin where those of the tasks before it end. In
    an order, rows that tie are told apart by the hash of all their columns, so that a build repeats itself.
    """
    from pyspark.sql import functions as sf  # noqa: PLC0415 - an optional extra

    frame = frame_of(connection, table)
    if order:
        frame = frame.orderBy(*(sf.col(key).asc_nulls_last() for key in order), sf.xxhash64(*_quoted(frame)))
    stored = _written(connection, frame.withColumn(_PLACE, sf.monotonically_increasing_id()))
    task = sf.shiftright(_PLACE, _NUMBER_BITS)
    counts = {row[_TASK]: row["count"] for row in stored.groupBy(task.alias(_TASK)).count().collect()}
    shifts, begin = [], first
    for number in sorted(counts):
        shifts.append((number, begin - (number << _NUMBER_BITS)))
        begin += counts[number]
    values = ", ".join(f"({number}L, {shift}L)" for number, shift in shifts) or f"(0L, {first}L)"
    by_task = session_of(connection).sql(f"SELECT * FROM VALUES {values} AS shifts({_TASK}, {_SHIFT})")  # noqa: S608 - whole numbers
    numbered = stored.join(sf.broadcast(by_task), task == sf.col(_TASK))
    numbered = numbered.withColumn(column, sf.col(_PLACE) + sf.col(_SHIFT)).drop(_PLACE, _TASK, _SHIFT)
    return _as_declared(opened(connection, numbered, name), {**table.schema(), column: ibis.dtype("int64")})


def _as_declared(result: ir.Table, schema: Mapping[str, Any]) -> ir.Table:
    """A table in the types that its expression has: in Spark's SQL whole numbers of 8 bits are written as of 32."""
    differ = {name: dtype for name, dtype in schema.items() if _bare(result[name].type()) != _bare(dtype)}
    return result.cast(differ) if differ else result


def _bare(dtype: Any) -> Any:
    """A type that does not say whether its values may be null, nor how fine its moments are."""
    return dtype.copy(nullable=True, scale=None) if dtype.is_timestamp() else dtype.copy(nullable=True)


def store(connection: Any, name: str, table: ir.Table) -> ir.Table:
    """The rows of an expression, computed now and never again, under a name."""
    return _as_declared(opened(connection, _written(connection, frame_of(connection, table)), name), table.schema())


def stream(connection: Any, table: ir.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows in their order; executors write them, and the driver reads and removes a file at a time."""
    schema = table.schema().to_pyarrow()
    folder = _write(connection, frame_of(connection, table))
    for file in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(rows):
                yield batch.cast(schema)
        file.unlink()
    shutil.rmtree(folder)


def collect(connection: Any, table: ir.Table) -> pa.Table:
    """All rows in the driver's memory."""
    return frame_of(connection, table).toArrow().cast(table.schema().to_pyarrow())


@ibis.udf.scalar.builtin(name="xxhash64")  # type: ignore[untyped-decorator]
def _xxhash64(value) -> int:  # type: ignore[empty-body,no-untyped-def]  # noqa: ANN001 - any type
    """Spark's hash of a value."""


def spark_hash(table: ir.Table, columns: Sequence[str]) -> ir.Value:
    """A hash of a row's columns as int64.

    Spark's own skips nulls, so that it would not tell which of two columns is null: each column says so beside it.
    """
    present = {f"{place}": table[c] for place, c in enumerate(columns)}
    missing = {f"{place}/null": table[c].isnull() for place, c in enumerate(columns)}
    # Lists with nulls inside are told apart by their texts.
    texts = {f"{place}/text": table[c].cast("string") for place, c in enumerate(columns) if table[c].type().is_array()}
    return _xxhash64(ibis.struct({**present, **missing, **texts}))


def _quoted(frame: Any) -> list[str]:
    return [f"`{name.replace('`', '``')}`" for name in frame.columns]


def _written(connection: Any, frame: Any) -> Any:
    """A frame whose rows are computed now and never again."""
    return session_of(connection).read.parquet(f"file://{_write(connection, frame)}")


def _write(connection: Any, frame: Any) -> Path:
    """A new folder with the frame's rows, in the order of its files' names."""
    folder = Path(session_of(connection).conf.get(_SCRATCH)) / f"spark-{uuid4().hex}"
    frame.write.parquet(f"file://{folder}")
    return folder
