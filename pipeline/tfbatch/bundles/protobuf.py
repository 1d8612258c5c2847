"""Just enough of Protocol Buffers to read and to write ONNX, and to ask a file what it would reach for:
operators of other domains, and weights outside of itself.

The run stage has no onnx package, and onnxruntime answers only after it has loaded the graph; by
then it has followed paths, and even addresses in memory, that a tensor gives for its data. A
message is a list of tagged fields; those that hold no tensor are stepped over unread.
Source: protobuf's wire format; onnx.proto.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfbatch.errors import BadConfiguration

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
DEEPEST = 64  # graphs lie in attributes of nodes of graphs

# In which fields, by number, a message holds which other ones.
INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
}
DOMAIN = {"opset": 1, "node": 7}
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # of a tensor

Span = tuple[int, int]  # of a message in the file: where it begins and ends
Field = tuple[int, Span | None, int]  # its number, where what has a length lies, and what a lone integer is


def operator_domains(path: Path) -> set[str]:
    """The operator domains that a model and its functions import, and those that nodes name all the
    same; "" is ONNX itself.

    Raises:
        BadConfiguration: the file is not a readable ModelProto, or holds tensors whose data is
            elsewhere.
    """
    imported, named = set(), set()
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            for kind, span in _messages(file, "model", (0, end), 0):
                if kind == "opset":
                    imported.add(_domain(file, kind, span))
                elif kind == "node":
                    named.add(_domain(file, kind, span))
                elif kind == "tensor" and _is_elsewhere(file, span):
                    raise BadConfiguration(f"{path} has weights outside of itself (external data), which are not read")
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error
    if not imported:
        raise BadConfiguration(f"{path} is not an ONNX file: it imports no operators")
    return imported | named


def _messages(file: BinaryIO, kind: str, span: Span, depth: int) -> Iterator[tuple[str, Span]]:
    """All messages of the kinds of INSIDE that lie in a message, at any depth."""
    if depth > DEEPEST:
        raise ValueError("its graphs lie too deep in one another")
    inside = INSIDE.get(kind)
    if inside is None:
        return
    for number, found, _ in fields(file, span):
        if found is not None and number in inside:
            yield inside[number], found
            yield from _messages(file, inside[number], found, depth + 1)


def _is_elsewhere(file: BinaryIO, span: Span) -> bool:
    """Whether a TensorProto gives a place for its data."""
    return any(number in (EXTERNAL_DATA, DATA_LOCATION) for number, *_ in fields(file, span))


def _domain(file: BinaryIO, kind: str, span: Span) -> str:
    """The domain of an OperatorSetIdProto or NodeProto, which leave the default out."""
    named = ""
    for number, found, _ in fields(file, span):
        if number == DOMAIN[kind] and found is not None:
            named = read_text(file, found)
    return named


def read(file: BinaryIO, span: Span) -> bytes:
    """What lies in a span of a file."""
    file.seek(span[0])
    return file.read(span[1] - span[0])


def read_text(file: BinaryIO, span: Span) -> str:
    """A field that is a string."""
    return read(file, span).decode()


def fields(file: BinaryIO, span: Span) -> Iterator[Field]:
    """The fields of a message.

    A tensor's location is left out where it says that the data is in the tensor.
    """
    position, end = span
    while position < end:
        file.seek(position)
        tag = _varint(file)
        if tag >> 32:  # onnxruntime would drop what is over, and see another field
            raise ValueError(f"byte {position} starts no field")
        number, kind = tag >> 3, tag & 7
        found, value = None, 0
        if kind == VARINT:
            value = _varint(file)
            if value == 0 and number == DATA_LOCATION:
                number = 0
            position = file.tell()
        elif kind in (FIXED32, FIXED64):
            position = file.tell() + (4 if kind == FIXED32 else 8)
        elif kind == LENGTH:
            length = _varint(file)
            found = (file.tell(), file.tell() + length)
            position = found[1]
        else:
            raise ValueError(f"byte {position} starts no field")
        if position > end:
            raise ValueError(f"a field runs past byte {end}, where it should end")
        yield number, found, value


def _varint(message: BinaryIO) -> int:
    """An integer of seven bits a byte, lowest first."""
    value = shift = 0
    while shift < 70:
        byte = message.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
    raise ValueError("it ends in the middle of a number")


def field(number: int, content: int | str | bytes) -> bytes:
    """A tagged field: a number, or what has a length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    encoded = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(encoded)) + encoded


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first."""
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)
