"""Read the raw Parquet tables as ibis tables: checked, with derived columns, and free of repeated rows if asked."""

import glob
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import ibis.expr.types as ir

from contract.errors import ConfigError, DataError
from features.feature_config import EntityConfig, EventsConfig, FeaturesConfig, TableConfig
from features.source.expressions import compile_expression, epoch_ms
from features.source.filesystems import file_facts, filesystem_of, find_remote, without_protocol
from features.source.query_engine import Backend, is_spark, read_parquet, scalar, to_arrow
from features.source.used_columns import raw_columns
from features.source.verify_parquet import check_files
from features.source.zones import day_of

_EPOCH = date(1970, 1, 1)


def read_table(
    connection: Backend, config: TableConfig, where: str, used: set[str], known: Mapping[str, str] | None = None
) -> ir.Table:
    """Open a Parquet file, directory or glob, and add its derived columns; of `used` columns the pages are verified.

    Files that are as they were `known`, by path and version, were verified before.

    Raises:
        DataError: nothing there, not Parquet, damaged, of several schemas, or no rows.
        ConfigError: a derived column that cannot be compiled.
    """
    files = find_files(config.path, where)
    filesystem = filesystem_of(config.path)
    intact = {path for path, version in file_facts(files) if known and known.get(path) == version}
    check_files(files, filesystem, where, pages=config.verify, columns=used, intact=intact)
    if filesystem is not None and not is_spark(connection):
        connection.con.register_filesystem(filesystem)
    try:
        table = read_parquet(connection, files)
        rows = int(scalar(connection, table.count()))
    except duckdb.Error as error:
        message = f"{where}: {config.path} cannot be read as Parquet: {str(error).splitlines()[0]}"
        raise DataError(message) from error
    if rows == 0:
        message = f"{where}: {config.path} has no rows; at least one is needed"
        raise DataError(message)
    return with_derived(table, config, where)


def with_derived(table: ir.Table, config: TableConfig, where: str) -> ir.Table:
    """A table with its derived columns.

    Raises:
        ConfigError: one that cannot be compiled.
    """
    for name, text in config.columns.items():
        table = table.mutate(**{name: compile_expression(text, table, f"{where}.columns.{name}")})
    return table


def find_files(path: str, where: str) -> list[str]:
    """The Parquet files behind a path or URL: itself, all below a directory, or the matches of a glob, sorted.

    Raises:
        DataError: there are none.
    """
    filesystem, local = filesystem_of(path), without_protocol(path)
    if filesystem is not None:
        files = find_remote(filesystem, path)
    elif Path(local).is_dir():
        files = sorted(str(file) for file in Path(local).rglob("*.parquet"))
    else:
        files = sorted(glob.glob(local, recursive=True))  # noqa: PTH207 - the pattern may be absolute
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


def read_events(connection: Backend, config: FeaturesConfig, known: Mapping[str, str] | None = None) -> ir.Table:
    """The log, checked for its keys and time, with exact duplicates kept, dropped or refused.

    Raises:
        DataError: a missing key or time column, a time without zone, a null time, or a refused duplicate.
    """
    events = config.events
    table = read_table(connection, events, "data.events", raw_columns(config), known)
    named = {"user": events.user, "item": events.item, "time": events.time}
    require_columns(table, {c: f"data.events.{entry}" for entry, c in named.items() if c}, events.path)
    if events.time is not None:
        _check_time(connection, table, events.time, events.path)
    if events.until is not None:
        table = _until(table, events, events.until)
    return _without_duplicates(connection, table, events)


def _until(table: ir.Table, events: EventsConfig, last: date) -> ir.Table:
    if events.time is None:
        message = f"{events.path}: data.events.until is {last}, but data.events.time names no column to compare"
        raise ConfigError(message)
    day = day_of(epoch_ms(table[events.time]).cast("int64"), events.time_zone)
    return table.filter(day <= (last - _EPOCH).days)


def require_zone(table: ir.Table, time: str, path: str) -> None:
    """Refuse a time without zone, which means another moment on every machine.

    Raises:
        DataError: naming the column and its type.
    """
    kind = table[time].type()
    if not kind.is_timestamp() or kind.timezone is None:
        message = (
            f"{path}: column {time!r} is {kind}; allowed is a timestamp with a time zone "
            "(write it as UTC, such as pyarrow's timestamp('ms', tz='UTC'))"
        )
        raise DataError(message)


def _check_time(connection: Backend, table: ir.Table, time: str, path: str) -> None:
    require_zone(table, time, path)
    missing = int(scalar(connection, table[time].isnull().sum()) or 0)
    if missing:
        message = f"{path}: {missing} rows have no {time!r}; every event needs its time"
        raise DataError(message)


def _without_duplicates(connection: Backend, table: ir.Table, events: EventsConfig) -> ir.Table:
    if events.duplicates == "keep":
        return table
    distinct = table.distinct()
    if events.duplicates == "first":
        return distinct
    total, unique = (int(scalar(connection, t.count())) for t in (table, distinct))
    if total != unique:
        message = f"{events.path}: {total - unique} of {total} rows repeat another exactly; set duplicates: first"
        raise DataError(message)
    return table


def read_entity(connection: Backend, config: EntityConfig, where: str, used: set[str]) -> ir.Table:
    """A table of users or items, whose key must be present, unique and not null.

    Raises:
        DataError: naming the key and what is wrong with it.
    """
    table = read_table(connection, config, where, used)
    require_columns(table, {config.key: f"{where}.key"}, config.path)
    key = table[config.key]
    counts = to_arrow(
        connection, table.aggregate(rows=table.count(), distinct=key.nunique(), null=key.isnull().sum())
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
        DataError: a struct, a map, JSON, UUID, bytes, a list of lists: whatever is no value or list of values.
    """
    for column in columns:
        kind = table[column].type()
        if not _is_value(kind.value_type if kind.is_array() else kind):
            message = f"{path}: column {column!r} is {kind}; allowed are numbers, strings, times and lists of them"
            raise DataError(message)


def _is_value(kind: Any) -> bool:
    plain = kind.is_numeric() or kind.is_boolean() or kind.is_timestamp() or kind.is_date() or kind.is_null()
    return bool(plain or (kind.is_string() and not kind.is_json()))


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
