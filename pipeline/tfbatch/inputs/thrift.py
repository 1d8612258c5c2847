"""Just enough of Thrift's compact protocol to read what a Parquet file declares of itself.

pyarrow's own view of a column's metadata ends the process where a footer contradicts itself, and it
does not show page headers at all. A struct becomes a mapping from field numbers to values.
Source: the compact protocol's specification.
"""

from typing import Any

TRUE, FALSE, BYTE, SHORT, INT, LONG, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEEPEST = 16  # of structs in one another; Parquet's own take six

Fields = dict[int, Any]


def read_struct(data: bytes, position: int, depth: int = 0) -> tuple[Fields, int]:
    """The fields of a struct that begins at a position, and where it ends.

    Raises:
        ValueError: the bytes are no struct.
        IndexError: they end too early.
    """
    if depth > DEEPEST:
        raise ValueError("structs lie too deep in one another")
    fields: Fields = {}
    number = 0
    while True:
        head = data[position]
        position += 1
        kind = head & 15
        if kind == 0:
            return fields, position
        if head > 15:
            number += head >> 4
        else:
            number, position = _integer(data, position)
        if kind in (TRUE, FALSE):
            fields[number] = kind == TRUE
        else:
            fields[number], position = _value(data, position, kind, depth)


def _value(data: bytes, position: int, kind: int, depth: int) -> tuple[Any, int]:
    """A value of a kind that takes bytes of its own."""
    if kind in (SHORT, INT, LONG):
        return _integer(data, position)
    if kind == BINARY:
        length, position = _varint(data, position)
        return _bytes(data, position, length)
    if kind == STRUCT:
        return read_struct(data, position, depth + 1)
    if kind in (LIST, SET):
        return _list(data, position, depth + 1)
    if kind in (TRUE, FALSE, BYTE):
        return _bytes(data, position, 1)
    if kind == DOUBLE:
        return _bytes(data, position, 8)
    raise ValueError(f"byte {position}: there is no kind {kind} of value")  # Parquet has no maps


def _list(data: bytes, position: int, depth: int) -> tuple[list[Any], int]:
    if depth > DEEPEST:
        raise ValueError("lists lie too deep in one another")
    head = data[position]
    kind, count = head & 15, head >> 4
    position += 1
    if count == 15:
        count, position = _varint(data, position)
    if count > len(data) - position:
        raise IndexError(f"a list at byte {position} has more entries than there are bytes")
    values = []
    for _ in range(count):
        value, position = _value(data, position, kind, depth)
        values.append(value)
    return values, position


def _bytes(data: bytes, position: int, length: int) -> tuple[bytes, int]:
    end = position + length
    if end > len(data):
        raise IndexError(f"a value at byte {position} runs past the end")
    return data[position:end], end


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """An integer with a sign, in zigzag."""
    value, position = _varint(data, position)
    return (value >> 1) ^ -(value & 1), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """An integer of seven bits a byte, lowest first."""
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"byte {position}: a number does not end")
