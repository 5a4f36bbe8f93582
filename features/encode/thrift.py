"""Thrift's compact protocol, as far as Parquet's footers use it: whole numbers are changed, and all else is copied.

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Callable, Mapping
from typing import Any

STOP = 0
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_MANY = 15
"""In the header of a list, that its length follows; in that of a field, the furthest step to the next."""
_CONTINUES = 128

Edits = Mapping[int, Any]
"""By field of a struct what becomes of it: a function of a whole number, or `Edits` of a struct or list of structs."""


def rewrite(data: bytes, at: int, edits: Edits, out: bytearray) -> int:
    """Append the struct that begins `at` a place, with its edits, and give the place after it.

    Raises:
        IndexError: the bytes end within it.
    """
    copied, field = at, 0
    while (header := data[at]) != STOP:
        field, kind, at = field_at(data, at, header, field)
        edit = edits.get(field)
        if edit is None:
            at = skip(data, at, kind)
            continue
        out += data[copied:at]
        if kind == _LIST:
            count, begin = list_at(data, at)
            out += data[at:begin]
            at = begin
            for _ in range(count):
                at = rewrite(data, at, edit, out)
        elif kind == _STRUCT:
            at = rewrite(data, at, edit, out)
        else:
            at = _edited(data, at, edit, out)
        copied = at
    out += data[copied : at + 1]
    return at + 1


def _edited(data: bytes, at: int, edit: Callable[[int], int], out: bytearray) -> int:
    value, at = integer(data, at)
    out += encoded(edit(value))
    return at


def field_at(data: bytes, at: int, header: int, before: int) -> tuple[int, int, int]:
    """The number and kind of a field with a header, after the field `before`, and where its value begins."""
    step = header >> 4
    if step:
        return before + step, header & _MANY, at + 1
    field, at = integer(data, at + 1)
    return field, header & _MANY, at


def list_at(data: bytes, at: int) -> tuple[int, int]:
    """How many elements a list has, and where the first begins."""
    count = data[at] >> 4
    return _unsigned(data, at + 1) if count == _MANY else (count, at + 1)


def list_of_structs(count: int) -> bytes:
    """The header of a list."""
    if count < _MANY:
        return bytes([count << 4 | _STRUCT])
    return bytes([_MANY << 4 | _STRUCT]) + _encoded(count)


def integer(data: bytes, at: int) -> tuple[int, int]:
    """A whole number, and the place after it."""
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def encoded(value: int) -> bytes:
    """The bytes of a whole number."""
    return _encoded(value << 1 if value >= 0 else ~(value << 1))


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) >= _CONTINUES:
        value |= (byte - _CONTINUES) << shift
        shift += 7
        at += 1
    return value | byte << shift, at + 1


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value >= _CONTINUES:
        out.append(value % _CONTINUES | _CONTINUES)
        value >>= 7
    out.append(value)
    return bytes(out)


def skip(data: bytes, at: int, kind: int) -> int:
    """The place after a field's value."""
    if kind == _BINARY:
        length, at = _unsigned(data, at)
        return at + length
    if kind == _STRUCT:
        return _after_struct(data, at)
    if kind in {_LIST, _SET}:
        count, begin = list_at(data, at)
        return _after_all(data, begin, [data[at] & _MANY] * count)
    if kind == _MAP:
        count, at = _unsigned(data, at)
        return _after_all(data, at + 1, [data[at] >> 4, data[at] & _MANY] * count) if count else at
    if kind in {_TRUE, _FALSE}:
        return at
    return at + 8 if kind == _DOUBLE else at + 1 if kind == _BYTE else _unsigned(data, at)[1]


def _after_struct(data: bytes, at: int) -> int:
    while (header := data[at]) != STOP:
        _, kind, at = field_at(data, at, header, 0)
        at = skip(data, at, kind)
    return at + 1


def _after_all(data: bytes, at: int, kinds: list[int]) -> int:
    for kind in kinds:
        # In a list a truth value takes a byte, in a struct its field's header says it.
        at = skip(data, at, _BYTE if kind in {_TRUE, _FALSE} else kind)
    return at
