"""Thrift's compact protocol, as far as Parquet's footers use it: what nobody asks for stays the bytes that it was.

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Mapping
from typing import Any, Self

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_MANY = 15
"""In the header of a list, that its length follows; in that of a field, the furthest step to the next."""
_CONTINUES = 128

Wanted = Mapping[int, Any]
"""The fields of a struct to be read: None stands for a whole number, `Wanted` for a struct or a list of structs."""
Fields = dict[int, tuple[int, Any]]
"""By field its kind and its value: a whole number, `Fields`, a list of `Fields`, or unread bytes."""


class Reader:
    """Reads structs from bytes."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first byte."""
        self._data, self._at = data, 0

    def struct(self, wanted: Wanted) -> Fields:
        """The next struct, of which the wanted fields are read.

        Raises:
            IndexError: the bytes end within it.
        """
        fields: Fields = {}
        field = 0
        while (header := self._byte()) != _STOP:
            kind, step = header & _MANY, header >> 4
            field = field + step if step else self._integer()
            begin = self._at
            if field not in wanted:
                self._skip(kind)
                fields[field] = kind, self._data[begin : self._at]
            elif wanted[field] is None:
                fields[field] = kind, self._integer()
            elif kind == _LIST:
                fields[field] = kind, [self.struct(wanted[field]) for _ in range(self._sequence()[1])]
            else:
                fields[field] = kind, self.struct(wanted[field])
        return fields

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._byte()) >= _CONTINUES:
            value |= (byte - _CONTINUES) << shift
            shift += 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)

    def _sequence(self) -> tuple[int, int]:
        """The kind and the number of a list's elements."""
        header = self._byte()
        count = header >> 4
        return header & _MANY, self._unsigned() if count == _MANY else count

    def _skip(self, kind: int) -> None:
        if kind == _BINARY:
            length = self._unsigned()
            self._at += length
        elif kind == _STRUCT:
            while (header := self._byte()) != _STOP:
                if not header >> 4:
                    self._unsigned()
                self._skip(header & _MANY)
        elif kind in {_LIST, _SET}:
            self._skip_all(*self._sequence())
        elif kind == _MAP:
            self._skip_map()
        elif kind in {_BYTE, _DOUBLE}:
            self._at += 1 if kind == _BYTE else 8
        elif kind not in {_TRUE, _FALSE}:
            self._unsigned()

    def _skip_all(self, kind: int, count: int) -> None:
        for _ in range(count):
            # In a list a truth value takes a byte, in a struct its field's header says it.
            self._skip(_BYTE if kind in {_TRUE, _FALSE} else kind)

    def _skip_map(self) -> None:
        count = self._unsigned()
        kinds = self._byte() if count else 0
        for _ in range(count):
            self._skip_all(kinds >> 4, 1)
            self._skip_all(kinds & _MANY, 1)


class Writer:
    """Writes structs as they were read."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.data = bytearray()

    def struct(self, fields: Fields) -> Self:
        """Append a struct."""
        last = 0
        for field, (kind, value) in fields.items():
            step = field - last
            self.data.append((step if 0 < step <= _MANY else 0) << 4 | kind)
            if not 0 < step <= _MANY:
                self._integer(field)
            last = field
            self._value(value)
        self.data.append(_STOP)
        return self

    def _value(self, value: Any) -> None:
        if isinstance(value, bytes):
            self.data += value
        elif isinstance(value, int):
            self._integer(value)
        elif isinstance(value, dict):
            self.struct(value)
        else:
            self.data.append(min(len(value), _MANY) << 4 | _STRUCT)
            if len(value) >= _MANY:
                self._unsigned(len(value))
            for element in value:
                self.struct(element)

    def _unsigned(self, value: int) -> None:
        while value >= _CONTINUES:
            self.data.append(value % _CONTINUES | _CONTINUES)
            value >>= 7
        self.data.append(value)

    def _integer(self, value: int) -> None:
        self._unsigned(value << 1 if value >= 0 else ~(value << 1))
