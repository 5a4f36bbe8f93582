"""Read the raw Parquet tables as ibis tables: checked, with derived columns, and free of repeated rows if asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from contract.errors import ConfigError, DataError
from features.feature_config import FeaturesConfig
from features.source.data_files import find_data, find_files
from features.source.expressions import compile_condition, compile_expression
from features.source.functions import split_text
from features.source.key_columns import as_key
from features.source.profile import is_scalar
from features.source.query_engine import Backend, engine_errors, first_line, scalar, to_arrow
from features.source.read_files import read_files, run_query
from features.source.times import as_moment
from features.table_config import EntityConfig, TableConfig


def read_table(
    connection: Backend, config: TableConfig, where: str, used: set[str], known: Mapping[str, str] | None = None
) -> ir.Table:
    """Open a table, and add its derived columns; of `used` columns the pages are verified.

    Files that are as they were `known`, by path and version, were verified before.

    Raises:
        DataError: nothing there, not Parquet, damaged, types that do not fit together, or no rows.
        ConfigError: a derived column or a condition that cannot be compiled.
    """
    raw = open_table(connection, config, where, used, known)
    table = prepared(raw, config, where)
    try:
        rows = int(scalar(connection, table.count()))
    except engine_errors() as error:
        failed = failed_part(connection, raw, config, where, used)
        raise DataError(failed or f"{where}: {place_of(config)} cannot be read: {first_line(error)}") from error
    if rows == 0:
        condition = f" for which `where: {config.where}` holds" if config.where else ""
        message = f"{where}: {place_of(config)} has no rows{condition}; at least one is needed"
        raise DataError(message)
    return table


def open_table(
    connection: Backend, config: TableConfig, where: str, used: set[str], known: Mapping[str, str] | None = None
) -> ir.Table:
    """A table as it lies, without what the recipe derives from it; see `read_table`."""
    if config.sql is not None:
        return run_query(connection, config.sql, where)
    return read_files(connection, find_data(config.path, where), config, where, used, known)


@dataclass(frozen=True)
class Step:
    """A table after one part of its block was applied: the part's place in the recipe, and the column that it gave."""

    place: str
    table: ir.Table
    column: str | None = None


def prepared(table: ir.Table, config: TableConfig, where: str) -> ir.Table:
    """A table as the recipe sees it: moments as such, derived columns added, rows chosen.

    Raises:
        ConfigError: an expression that cannot be compiled, or a column that cannot be a moment.
    """
    for step in _steps(table, config, where):
        table = step.table
    return table


def _steps(table: ir.Table, config: TableConfig, where: str) -> Iterator[Step]:
    for name, how in config.times.items():
        require_columns(table, {name: f"{where}.times"}, place_of(config))
        table = table.mutate(**{name: as_moment(table[name], how, f"{where}.times.{name}")})
        yield Step(f"{where}.times.{name}", table, name)
    for name, text in config.columns.items():
        alike = [c for c in table.columns if c != name and c.lower() == name.lower()]
        if alike:
            message = f"{where}.columns.{name} differs only in capitals from {alike[0]!r}, which engines take for one"
            raise ConfigError(message)
        table = table.mutate(**{name: compile_expression(text, table, f"{where}.columns.{name}")})
        yield Step(f"{where}.columns.{name}: {text!r}", table, name)
    if config.where:
        condition = compile_condition(config.where, table, f"{where}.where")
        yield Step(f"{where}.where: {config.where!r}", table.filter(condition))


def failed_part(connection: Backend, raw: ir.Table, config: TableConfig, where: str, used: set[str]) -> str:
    """The first part of a table's block that an engine cannot compute, and why; empty where it computes each alone."""
    source = f"{where}.sql" if config.sql is not None else f"{where}: {place_of(config)}"
    steps = [Step(source, raw), *(Step(f"{source}: column {c!r}", raw, c) for c in raw.columns if c in used)]
    for step in (*steps, *_steps(raw, config, where)):
        why = why_not(connection, step.table, step.column)
        if why:
            return f"{step.place} cannot be computed: {why}"
    return ""


def why_not(connection: Backend, table: ir.Table, column: str | None) -> str:
    """What an engine says when it computes all rows of a column, or of none; empty where it can."""
    if column is None:
        value = table.count()
    else:
        # To count some products, DuckDB does not multiply.
        value = table[column].max() if is_scalar(table[column].type()) else table[column].count()
    try:
        scalar(connection, value)
    except engine_errors() as error:
        return first_line(error)
    return ""


def place_of(config: TableConfig) -> str:
    """Where a table comes from, for messages."""
    return config.path or ("the query" if config.sql else "the log of served requests")


def require_columns(table: ir.Table, columns: dict[str, str], path: str) -> None:
    """Refuse a table that lacks a column; `columns` maps the column to the config entry that names it.

    Raises:
        DataError: naming the column, the entry and the columns there are.
    """
    for column, entry in columns.items():
        if column not in table.columns:
            message = f"{path} has no column {column!r} (named by {entry}); it has {', '.join(table.columns)}"
            raise DataError(message)


def require_zone(table: ir.Table, time: str, path: str) -> None:
    """Refuse a time without zone, which means another moment on every machine.

    Raises:
        DataError: naming the column and its type.
    """
    dtype = table[time].type()
    if not dtype.is_timestamp() or dtype.timezone is None:
        how = "unit: ms" if dtype.is_numeric() else "zone: UTC"
        message = (
            f"{path}: column {time!r} is {dtype}; allowed is a timestamp with a time zone: "
            f"say what it means, such as `times: {{{time}: {{{how}}}}}` under the table"
        )
        raise DataError(message)


def read_entity(connection: Backend, config: EntityConfig, where: str, used: set[str]) -> ir.Table:
    """A table of users or items, whose key must be present, unique and not null.

    Raises:
        DataError: naming the key and what is wrong with it.
    """
    table = read_table(connection, config, where, used)
    require_columns(table, {config.key: f"{where}.key"}, place_of(config))
    table = table.mutate(**{config.key: as_key(connection, table, config.key, place_of(config))})
    if config.newest is not None:
        require_columns(table, {config.newest: f"{where}.newest"}, place_of(config))
        table = _newest(table, config.key, config.newest)
    key = table[config.key]
    counts = to_arrow(
        connection, table.aggregate(rows=table.count(), distinct=key.nunique(), null=key.isnull().sum())
    ).to_pylist()[0]
    if counts["null"]:
        message = f"{place_of(config)}: {counts['null']} rows have no {config.key!r}; each row of {where} needs its key"
        raise DataError(message)
    if counts["rows"] != counts["distinct"]:
        repeated = counts["rows"] - counts["distinct"]
        message = (
            f"{place_of(config)}: {repeated} rows repeat a {config.key!r}; one row a key is allowed: say which row "
            f"of a key counts, such as `newest: updated_at` under {where}"
        )
        raise DataError(message)
    return table


def _newest(table: ir.Table, key: str, newest: str) -> ir.Table:
    """One row per key: that with the largest value; of equal ones that whose other values are the largest."""
    others = [name for name, dtype in table.schema().items() if name not in (key, newest) and is_scalar(dtype)]
    order = [ibis.desc(table[name], nulls_first=False) for name in (newest, *others)]
    numbered = table.mutate(__place=ibis.row_number().over(group_by=key, order_by=order))
    return numbered.filter((numbered["__place"] == 0) | numbered[key].isnull()).drop("__place")


def with_lists(table: ir.Table, config: FeaturesConfig) -> ir.Table:
    """A table with its texts of several values split, where a feature has a `separator`.

    Raises:
        DataError: such a column that is not text.
    """
    split = {}
    for feature in config.features:
        if feature.separator is not None and feature.name in table.columns:
            dtype = table[feature.name].type()
            if not dtype.is_string():
                message = f"feature {feature.name!r} has a separator, but its column is {dtype}; it splits texts"
                raise DataError(message)
            split[feature.name] = split_text(table[feature.name], feature.separator)
    return table.mutate(**split) if split else table


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


def align(table: ir.Table, like: ir.Table) -> ir.Table:
    """The columns of `like` in its order and types; those that `table` lacks are null."""
    schema = like.schema()
    return table.select(
        **{name: table[name].cast(kind) if name in table.columns else ibis.null(kind) for name, kind in schema.items()}
    )


def source_files(config: TableConfig, where: str) -> list[str]:
    """The files of a table; of a query none, because nothing tells which it reads."""
    return find_files(config.path, where) if config.path else []
