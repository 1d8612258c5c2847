"""Just enough of Protocol Buffers to ask an ONNX file which operator domains it uses.

The run stage has no onnx package, and onnxruntime answers only after it has loaded the graph. The
top level of a ModelProto is a list of tagged fields; the graph itself is stepped over unread.
Source: protobuf's wire format; onnx.proto (ModelProto: opset_import = 8, functions = 25;
FunctionProto: opset_import = 9; OperatorSetIdProto: domain = 1).
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tfbatch.errors import BadConfiguration

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
OPSET_IMPORT, FUNCTIONS = 8, 25
FUNCTION_OPSET_IMPORT = 9
DOMAIN = 1


def operator_domains(path: Path) -> set[str]:
    """The operator domains that a model and its functions import; "" is ONNX itself.

    Raises:
        BadConfiguration: the file is not a readable ModelProto.
    """
    domains = set()
    try:
        with path.open("rb") as file:
            for number, content in _fields(file, {OPSET_IMPORT, FUNCTIONS}):
                if number == OPSET_IMPORT:
                    domains.add(_domain(content))
                else:
                    imports = _fields(io.BytesIO(content), {FUNCTION_OPSET_IMPORT})
                    domains.update(_domain(opset) for _, opset in imports)
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error
    if not domains:
        raise BadConfiguration(f"{path} is not an ONNX file: it imports no operators")
    return domains


def _domain(opset: bytes) -> str:
    """The domain of an OperatorSetIdProto, which leaves the default out."""
    named = [content.decode() for _, content in _fields(io.BytesIO(opset), {DOMAIN})]
    return named[-1] if named else ""


def _fields(message: BinaryIO, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of these numbers; all else is stepped over."""
    end = message.seek(0, os.SEEK_END)
    message.seek(0)
    while (position := message.tell()) < end:
        tag = _varint(message)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            _varint(message)
        elif kind in (FIXED32, FIXED64):
            message.seek(4 if kind == FIXED32 else 8, os.SEEK_CUR)
        elif kind == LENGTH:
            length = _varint(message)
            if message.tell() + length > end:
                raise ValueError(f"the field at byte {position} runs past the end")
            if number in wanted:
                yield number, message.read(length)
            else:
                message.seek(length, os.SEEK_CUR)
        else:
            raise ValueError(f"byte {position} starts no field")


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
