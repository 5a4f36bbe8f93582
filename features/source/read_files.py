"""Open the files of a table as one: of one schema, with their partitions, and with nothing that a folder overrides."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

from contract.errors import ConfigError, DataError
from contract.sha256 import sha256_of_bytes
from features.source.data_files import DataFiles, partition_type
from features.source.file_schemas import FileSchema, canonical, refuse_contradictions, unite
from features.source.filesystems import file_facts, filesystem_of
from features.source.query_engine import Backend, is_spark, named_query, read_parquet
from features.source.verify_parquet import check_files
from features.table_config import TableConfig


def read_files(
    connection: Backend,
    data: DataFiles,
    config: TableConfig,
    where: str,
    used: Collection[str],
    known: Mapping[str, str] | None = None,
) -> ir.Table:
    """The files of a table as one; pages of `used` columns are verified, but for files that were `known` by version.

    Raises:
        DataError: damage, types that do not fit together, or folders that contradict their files.
    """
    filesystem = filesystem_of(config.path)
    intact = {path for path, version in file_facts(data.files) if known and known.get(path) == version}
    schemas = check_files(data.files, filesystem, where, pages=config.verify, columns=used, intact=intact)
    types = unite(schemas, used, where)
    partitions = data.partitions()
    refuse_contradictions(schemas, partitions, data.above(), where)
    if filesystem is not None and not is_spark(connection):
        _register(connection, filesystem)
    folders = {name: _folder_type(values, types.get(name)) for name, values in partitions.items()}
    parts = [
        _aligned(read_parquet(connection, files, folders, data.root), types, folders)
        for files in _alike(schemas, types)
    ]
    return ibis.union(*parts) if len(parts) > 1 else parts[0]


def _folder_type(values: Sequence[str | None], own: pa.DataType | None) -> str:
    """The type of a partition's values; where the files have the column, too, it keeps its `own`."""
    kinds = ((pa.types.is_integer, "int64"), (pa.types.is_string, "string"), (pa.types.is_boolean, "boolean"))
    kept = (name for is_kind, name in kinds if own is not None and is_kind(own))
    return next(kept, None) or partition_type(values)


def _register(connection: Backend, filesystem: Any) -> None:
    """Let the engine read through a filesystem; several tables of a build may lie on one, and it takes each once."""
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    if not connection.con.filesystem_is_registered(protocol):
        connection.con.register_filesystem(filesystem)


def _alike(schemas: Sequence[FileSchema], types: Mapping[str, pa.DataType]) -> list[list[str]]:
    """Files by what they hold of a table's columns: an engine reads those of one schema without looking at each."""
    groups: defaultdict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for file in schemas:
        groups[tuple((field.name, str(field.type)) for field in file.schema if field.name in types)].append(file.path)
    return list(groups.values())


def _aligned(table: ir.Table, types: Mapping[str, pa.DataType], folders: Collection[str]) -> ir.Table:
    """The table's columns in its order and types, and then its partitions."""
    columns = {name: _column(table, name, dtype) for name, dtype in types.items() if name not in folders}
    return table.select(**columns, **{name: table[name] for name in folders})


def _column(table: ir.Table, name: str, dtype: pa.DataType) -> ir.Value:
    if pa.types.is_null(dtype):
        return ibis.null("string")
    odd = isinstance(dtype, pa.BaseExtensionType) or pa.types.is_time(dtype) or pa.types.is_duration(dtype)
    plain = not (odd or pa.types.is_map(dtype))
    if name not in table.columns:
        return ibis.null(ibis.dtype(dtype) if plain else "int64")
    value = table[name]
    return value if not plain or value.type() == ibis.dtype(dtype) else value.cast(ibis.dtype(dtype))


def run_query(connection: Backend, text: str, where: str) -> ir.Table:
    """The rows of one SELECT statement of DuckDB.

    Raises:
        ConfigError: another statement, more than one, or Spark.
        DataError: a statement that DuckDB cannot run.
    """
    if is_spark(connection):
        message = f"{where}.sql is DuckDB's; with engine spark, write the query's rows as Parquet and give their `path`"
        raise ConfigError(message)
    try:
        statements = connection.con.extract_statements(text)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            message = f"{where}.sql must be one SELECT statement, but it is {text!r}"
            raise ConfigError(message)
        table = named_query(connection, f"query_{sha256_of_bytes(text.encode())[:16]}", text.strip().rstrip(";"))
    except duckdb.Error as error:
        message = f"{where}.sql cannot be run: {str(error).splitlines()[0]}"
        raise DataError(message) from error
    types = {name: dtype.to_pyarrow() for name, dtype in table.schema().items() if not _is_odd(dtype)}
    return table.mutate(**{name: _column(table, name, canonical(dtype)) for name, dtype in types.items()})


def _is_odd(dtype: Any) -> bool:
    """Whether Arrow has no such type, or none that features are made of."""
    return bool(dtype.is_json() or dtype.is_geospatial() or dtype.is_interval() or dtype.is_unknown())
