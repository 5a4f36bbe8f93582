"""Columns that name a user or an item, as whole numbers of 64 bits or as texts."""

import ibis
import ibis.expr.types as ir

from contract.errors import DataError
from features.source.file_schemas import EXACT_FLOAT
from features.source.query_engine import Backend, to_arrow
from features.source.row_types import is_nan

_LOW_BITS = 2**63 - 1


def as_key(connection: Backend, table: ir.Table, name: str, path: str) -> ir.Value:
    """A key column; numbers that pandas made floats because of a null are whole, and NaN is null.

    Raises:
        DataError: fractions, which name nothing, or numbers of which a fraction holds no last digit.
    """
    value = table[name]
    dtype = value.type()
    if dtype.is_uint64():
        return by_bits(value)
    if not dtype.is_floating():
        return value
    known = ibis.ifelse(is_nan(value), ibis.null(dtype), value)
    counted = table.aggregate(
        fractions=(known != known.floor()).sum(), inexact=(known.abs() >= ibis.literal(EXACT_FLOAT, "float64")).sum()
    )
    (counts,) = to_arrow(connection, counted).to_pylist()
    if counts["fractions"]:
        message = (
            f"{path}: column {name!r} is a key, but {counts['fractions']} rows have fractions; a key is a whole number "
            "or text"
        )
        raise DataError(message)
    if counts["inexact"]:
        message = (
            f"{path}: column {name!r} is a key, but stored with a fraction part, which cannot tell ids from 2**53 on "
            f"apart, as {counts['inexact']} rows have them; store it as whole numbers or texts"
        )
        raise DataError(message)
    return known.cast("int64")


def by_bits(value: ir.Value) -> ir.Value:
    """Whole numbers up to 2**64 - 1 as the signed ones with the same bits, as requests send them, too."""
    low = (value & ibis.literal(_LOW_BITS, "uint64")).cast("int64")
    return ibis.ifelse(value > _LOW_BITS, low + ibis.literal(-(2**63), "int64"), low)
