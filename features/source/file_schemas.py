"""One schema for the files of a table: types widen where nothing is lost, and contradictions are refused.

Texts are texts however they are stored, whole numbers take the widest type, times with a zone are moments whatever
their unit and zone, and a column that some files lack is null there. What no feature uses may differ as it likes.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import DataError

EXACT_FLOAT = 2**53
"""Whole numbers up to it are exact as float64."""
_SIGNED_END = 2**63
"""The first whole number that int64 does not hold."""


@dataclass(frozen=True)
class FileSchema:
    """A file's columns, and the smallest and largest whole number of each as far as its statistics tell them."""

    path: str
    schema: pa.Schema
    extremes: Mapping[str, tuple[int, int]]

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)


def schema_of(path: str, file: pq.ParquetFile) -> FileSchema:
    """What a file's footer says."""
    schema = file.schema_arrow
    whole = {field.name for field in schema if pa.types.is_integer(field.type) or _is_whole_decimal(field.type)}
    extremes: dict[str, tuple[int, int]] = {}
    unknown: set[str] = set()
    for group in range(file.metadata.num_row_groups if whole else 0):
        row_group = file.metadata.row_group(group)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            name = column.path_in_schema
            if name not in whole:
                continue
            statistics = column.statistics
            if statistics is not None and statistics.has_min_max:
                least, most = int(statistics.min), int(statistics.max)
                before = extremes.get(name, (least, most))
                extremes[name] = min(before[0], least), max(before[1], most)
            elif statistics is None or statistics.null_count != row_group.num_rows:
                unknown.add(name)
    return FileSchema(path, schema, {name: both for name, both in extremes.items() if name not in unknown})


def unite(files: Sequence[FileSchema], used: Collection[str] | None, where: str) -> dict[str, pa.DataType]:
    """The type of each column of a table; the `used` ones (None: all) must fit together, others may be left out.

    Raises:
        DataError: a used column whose types in two files do not fit, that a file has twice, that two files spell
            differently, or with decimals beyond 64 bits.
    """
    types: dict[str, pa.DataType] = {}
    _refuse_respelled(files, used, where)
    for name in dict.fromkeys(name for file in files for name in file.names):
        matters = used is None or name in used
        having = [file for file in files if name in file.names]
        if matters:
            _refuse_twice(name, having, where)
            _refuse_beyond_64_bits(name, having, where)
        if any(_spelled_alike(name, file) > 1 for file in having):
            continue
        united = _united(name, having)
        if isinstance(united, FileSchema):
            if matters:
                raise _refusal(name, united, having[0], where)
            continue
        types[name] = united
    return types


def _united(name: str, files: Sequence[FileSchema]) -> pa.DataType | FileSchema:
    """The type that holds a column's values of all files, or the first file that it cannot hold."""
    exact = all(_is_exact(file, name) for file in files if _is_whole(file, name))
    unsigned = _has_unsigned_decimals(name, files)
    united = _read_as(name, files[0], unsigned=unsigned)
    for file in files[1:]:
        both = _wider(united, _read_as(name, file, unsigned=unsigned), exact=exact)
        if both is None:
            return file
        united = both
    return united


def _is_exact(file: FileSchema, name: str) -> bool:
    """Whether a float64 holds every value of a column of whole numbers."""
    least, most = file.extremes.get(name, (0, EXACT_FLOAT + 1))
    return least >= -EXACT_FLOAT and most <= EXACT_FLOAT


def _read_as(name: str, file: FileSchema, *, unsigned: bool) -> pa.DataType:
    dtype = file.schema.field(name).type
    return pa.uint64() if unsigned and _is_whole_decimal(dtype) else canonical(dtype)


def _is_whole_decimal(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(dtype) and dtype.scale <= 0)


def _has_unsigned_decimals(name: str, files: Sequence[FileSchema]) -> bool:
    """Whether a column has unsigned numbers of 64 bits, stored as decimals: Spark has no other type for them."""
    decimals = [file for file in files if _is_whole_decimal(file.schema.field(name).type)]
    known = [file.extremes[name] for file in decimals if name in file.extremes]
    if not known or len(known) < len(decimals):
        return False
    beside = any(pa.types.is_uint64(file.schema.field(name).type) for file in files)
    return min(least for least, _ in known) >= 0 and (beside or max(most for _, most in known) >= _SIGNED_END)


def _refuse_beyond_64_bits(name: str, files: Sequence[FileSchema], where: str) -> None:
    """Refuse whole decimals that neither signed nor unsigned numbers of 64 bits hold."""
    for file in files:
        dtype = file.schema.field(name).type
        least, most = file.extremes.get(name, (0, 0))
        end = _SIGNED_END if least < 0 else 2 * _SIGNED_END
        if _is_whole_decimal(dtype) and (least < -_SIGNED_END or most >= end):
            message = (
                f"{where}: column {name!r} of {file.path} is {dtype} and holds {most if most >= end else least}; whole "
                "numbers are read as 64 bits: make it a text (VARCHAR) or a fraction (DOUBLE) by `sql` in place of "
                f"`path`, such as `SELECT * REPLACE ({name}::VARCHAR AS {name}) ...`"
            )
            raise DataError(message)


def _is_whole(file: FileSchema, name: str) -> bool:
    return bool(pa.types.is_integer(file.schema.field(name).type))


def _refusal(name: str, file: FileSchema, first: FileSchema, where: str) -> DataError:
    here, there = file.schema.field(name).type, first.schema.field(name).type
    return DataError(
        f"{where}: column {name!r} is {here} in {file.path}, but {there} in {first.path}, and no type holds both "
        "without loss; rewrite the files that differ"
    )


def _spelled_alike(name: str, file: FileSchema) -> int:
    return sum(other.lower() == name.lower() for other in file.names)


def _refuse_twice(name: str, having: Sequence[FileSchema], where: str) -> None:
    for file in having:
        if _spelled_alike(name, file) > 1:
            twice = [other for other in file.names if other.lower() == name.lower()]
            same = (
                "twice" if len(set(twice)) == 1 else f"as {' and '.join(map(repr, twice))}, which engines take for one"
            )
            message = f"{where}: {file.path} has the column {name!r} {same}; give each column its own name"
            raise DataError(message)


def _refuse_respelled(files: Sequence[FileSchema], used: Collection[str] | None, where: str) -> None:
    """Refuse a used column that a later file spells with other capitals: it would be null there, or null before."""
    first: dict[str, tuple[str, FileSchema]] = {}
    for file in files:
        for name in file.names:
            other, there = first.setdefault(name.lower(), (name, file))
            if other != name and there is not file and (used is None or not {name, other}.isdisjoint(used)):
                message = (
                    f"{where}: {file.path} spells the column {name!r}, but {there.path} {other!r}, which engines take "
                    "for one; rename it in the files that differ"
                )
                raise DataError(message)


def canonical(dtype: pa.DataType) -> pa.DataType:  # noqa: C901, PLR0911 - one case per line
    """What a column is read as: types that differ only in how they are stored become one."""
    if pa.types.is_dictionary(dtype):
        return canonical(dtype.value_type)
    if isinstance(dtype, pa.BaseExtensionType):
        return pa.string() if dtype.extension_name == "arrow.uuid" else dtype
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_timestamp(dtype):
        return pa.timestamp("us", "UTC" if dtype.tz else None)
    if pa.types.is_date(dtype):
        return pa.date32()
    if pa.types.is_decimal(dtype):
        return pa.int64() if dtype.scale <= 0 else pa.float64()
    if pa.types.is_float16(dtype):
        return pa.float32()
    if pa.types.is_fixed_size_binary(dtype):
        return pa.binary()
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(field.name, canonical(field.type)) for field in dtype])
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return pa.list_(canonical(dtype.value_type))
    return dtype


_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSIGNED = (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())


def _wider(one: pa.DataType, other: pa.DataType, *, exact: bool) -> pa.DataType | None:
    """The type that holds both; None: there is none. `exact`: whole numbers fit into a float64."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _wider_struct(one, other, exact=exact)
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = _wider(one.value_type, other.value_type, exact=exact)
        return None if inner is None else pa.list_(inner)
    return _wider_number(one, other, exact=exact)


def _wider_struct(one: pa.DataType, other: pa.DataType, *, exact: bool) -> pa.DataType | None:
    """The fields of both; one that a file's structs lack is null there."""
    fields = {field.name: field.type for field in one}
    for field in other:
        both = _wider(fields.get(field.name, field.type), field.type, exact=exact)
        if both is None:
            return None
        fields[field.name] = both
    return pa.struct(list(fields.items()))


def _wider_number(one: pa.DataType, other: pa.DataType, *, exact: bool) -> pa.DataType | None:
    for family in (_SIGNED, _UNSIGNED):
        if one in family and other in family:
            return max(one, other, key=family.index)
    whole = [dtype for dtype in (one, other) if pa.types.is_integer(dtype)]
    if len(whole) + sum(map(pa.types.is_floating, (one, other))) < len((one, other)):
        return None
    if len(whole) == len((one, other)):
        # Of what is at most 32 bits wide and without a sign, int64 holds all.
        return None if pa.uint64() in whole else pa.int64()
    narrow = not {pa.int64(), pa.uint64()} & set(whole)
    return pa.float64() if narrow or exact else None


def refuse_contradictions(
    files: Sequence[FileSchema], partitions: Mapping[str, Sequence[str | None]], above: Collection[str], where: str
) -> None:
    """Refuse a folder's ``name=value`` beside a column of that name with other values, which an engine would override.

    `above` are names in the path itself, which are not partitions.

    Raises:
        DataError: naming file, column and both values.
    """
    for place, file in enumerate(files):
        for name, values in partitions.items():
            column = next((n for n in file.names if n.lower() == name.lower()), None)
            seen = set() if column is None else _values(file.path, column)
            if not all(_is_said(value, values[place]) for value in seen):
                message = (
                    f"{where}: {file.path} lies in the partition {name}={values[place]}, but its column {column!r} has "
                    f"{', '.join(sorted(map(str, seen))[:3])}; rename the folder, or drop the column from the files"
                )
                raise DataError(message)
        hidden = next((n for n in file.names if n in above and partitions), None)
        if hidden is not None:
            message = (
                f"{where}: column {hidden!r} of {file.path} stands in the path itself, too ({hidden}=...), beside "
                "other partitions; move the table to a folder without that part in its path"
            )
            raise DataError(message)


def _values(path: str, name: str) -> set[Any]:
    return set(pq.read_table(path, columns=[name], partitioning=None)[name].unique().to_pylist())


def _is_said(value: Any, text: str | None) -> bool:
    """Whether a folder's name says a column's value; whole numbers may have zeros before them, as months have."""
    if text is None or value is None or isinstance(value, str):
        return bool(value == text)
    if isinstance(value, int) and re.fullmatch(r"-?[0-9]+", text):
        return int(text) == int(value)
    return str(value).lower() == text.lower()
