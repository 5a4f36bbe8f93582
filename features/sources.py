"""Read the raw Parquet tables as ibis tables: checked, with derived columns, and free of repeated rows if asked."""

import glob
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from features.config import EntityConfig, EventsConfig, FeaturesConfig, TableConfig
from features.errors import ConfigError, DataError
from features.expressions import compile_expression

_NESTED = ("struct", "map", "json")


def connect(memory_limit: str, spill: Path) -> Backend:
    """An embedded DuckDB that spills to `spill` beyond its memory limit and reads all times as UTC."""
    connection = ibis.duckdb.connect(memory_limit=memory_limit, temp_directory=str(spill))
    connection.raw_sql("SET TimeZone = 'UTC'").fetchall()
    connection.raw_sql("SET preserve_insertion_order = true").fetchall()
    return connection


def record_batches(connection: Backend, table: ir.Table, rows: int) -> pa.RecordBatchReader:
    """Run an expression and stream its rows; ibis 12's own reader calls a method that DuckDB 2 no longer has."""
    return connection.con.sql(ibis.to_sql(table, dialect="duckdb")).to_arrow_reader(rows)


def read_table(connection: Backend, config: TableConfig, where: str) -> ir.Table:
    """Open a Parquet file, directory or glob, and add its derived columns.

    Raises:
        DataError: nothing there, not Parquet, or no rows.
        ConfigError: a derived column that cannot be compiled.
    """
    files = find_files(config.path, where)
    try:
        table = connection.read_parquet(files, hive_partitioning=True, union_by_name=True)
        rows = int(connection.to_pyarrow(table.count()).as_py())
    except duckdb.Error as error:
        message = f"{where}: {config.path} cannot be read as Parquet: {str(error).splitlines()[0]}"
        raise DataError(message) from error
    if rows == 0:
        message = f"{where}: {config.path} has no rows; at least one is needed"
        raise DataError(message)
    for name, text in config.columns.items():
        table = table.mutate(**{name: compile_expression(text, table, f"{where}.columns.{name}")})
    return table


def find_files(path: str, where: str) -> list[str]:
    """The Parquet files behind a path: itself, all below a directory, or the matches of a glob, sorted.

    Raises:
        DataError: there are none.
    """
    if Path(path).is_dir():
        files = sorted(str(file) for file in Path(path).rglob("*.parquet"))
    else:
        files = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    if not files:
        message = f"{where}: no Parquet file at {path!r} (seen from {Path.cwd()}); correct `path`"
        raise DataError(message)
    return files


def require_columns(table: ir.Table, columns: dict[str, str], path: str) -> None:
    """Refuse a table that lacks a column; `columns` maps the column to the config entry that names it.

    Raises:
        DataError: naming the column, the entry and the columns there are.
    """
    for column, entry in columns.items():
        if column not in table.columns:
            message = f"{path} has no column {column!r} (named by {entry}); it has {', '.join(table.columns)}"
            raise DataError(message)


def read_events(connection: Backend, config: FeaturesConfig) -> ir.Table:
    """The log, checked for its keys and time, with exact duplicates kept, dropped or refused.

    Raises:
        DataError: a missing key or time column, a time without zone, a null time, or a refused duplicate.
    """
    events = config.events
    table = read_table(connection, events, "data.events")
    named = {"user": events.user, "item": events.item, "time": events.time}
    require_columns(table, {c: f"data.events.{entry}" for entry, c in named.items() if c}, events.path)
    if events.time is not None:
        _check_time(connection, table, events.time, events.path)
    return _without_duplicates(connection, table, events)


def _check_time(connection: Backend, table: ir.Table, time: str, path: str) -> None:
    kind = table[time].type()
    if not kind.is_timestamp() or kind.timezone is None:
        message = (
            f"{path}: column {time!r} is {kind}; allowed is a timestamp with a time zone "
            "(write it as UTC, such as pyarrow's timestamp('ms', tz='UTC'))"
        )
        raise DataError(message)
    missing = int(connection.to_pyarrow(table[time].isnull().sum()).as_py() or 0)
    if missing:
        message = f"{path}: {missing} rows have no {time!r}; every event needs its time"
        raise DataError(message)


def _without_duplicates(connection: Backend, table: ir.Table, events: EventsConfig) -> ir.Table:
    if events.duplicates == "keep":
        return table
    distinct = table.distinct()
    if events.duplicates == "first":
        return distinct
    total, unique = (int(connection.to_pyarrow(t.count()).as_py()) for t in (table, distinct))
    if total != unique:
        message = f"{events.path}: {total - unique} of {total} rows repeat another exactly; set duplicates: first"
        raise DataError(message)
    return table


def read_entity(connection: Backend, config: EntityConfig, where: str) -> ir.Table:
    """A table of users or items, whose key must be present, unique and not null.

    Raises:
        DataError: naming the key and what is wrong with it.
    """
    table = read_table(connection, config, where)
    require_columns(table, {config.key: f"{where}.key"}, config.path)
    key = table[config.key]
    counts = connection.to_pyarrow(
        table.aggregate(rows=table.count(), distinct=key.nunique(), null=key.isnull().sum())
    ).to_pylist()[0]
    if counts["null"]:
        message = f"{config.path}: {counts['null']} rows have no {config.key!r}; each row of {where} needs its key"
        raise DataError(message)
    if counts["rows"] != counts["distinct"]:
        repeated = counts["rows"] - counts["distinct"]
        message = f"{config.path}: {repeated} rows repeat a {config.key!r}; one row a key is allowed"
        raise DataError(message)
    return table


def check_types(table: ir.Table, columns: list[str], path: str) -> None:
    """Refuse columns whose type no feature can take.

    Raises:
        DataError: a struct, map or JSON column.
    """
    for column in columns:
        kind = table[column].type()
        if any(str(kind).startswith(nested) for nested in _NESTED):
            message = f"{path}: column {column!r} is {kind}; allowed are numbers, strings, times and lists of them"
            raise DataError(message)


def key_of(config: FeaturesConfig, side: str) -> str:
    """The log's key column of the user or the item.

    Raises:
        ConfigError: the log names none.
    """
    key = config.events.user if side == "user" else config.events.item
    if key is None:
        message = f"data.{side}s is given, but data.events.{side} does not say which column of the log refers to it"
        raise ConfigError(message)
    return key
