"""Graphs of one operator, written byte by byte: to try a device out needs neither a bundle nor the onnx package.

Source: protobuf's wire format; onnx.proto.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FLOAT, INT32, FLOAT16 = 1, 6, 10  # TensorProto.DataType
KINDS = {"float32": FLOAT, "int32": INT32, "float16": FLOAT16}
INT = 2  # AttributeProto.AttributeType
IR_VERSION, OPSET, MICROSOFT_OPSET = 8, 17, 1
MICROSOFT = "com.microsoft"

Array = npt.NDArray[np.generic]


def one_operator(operator: str, inputs: Mapping[str, Array], *, domain: str = "", **attributes: int) -> bytes:
    """An ONNX file: one node that takes arrays like these by name, and makes `made`, like the first one."""
    node = [field(1, name) for name in inputs] + [field(2, "made"), field(4, operator), field(7, domain)]
    node += [field(5, field(1, name) + field(3, number) + field(20, INT)) for name, number in attributes.items()]
    first = next(iter(inputs.values()))
    graph = [field(1, b"".join(node)), field(2, operator)]
    graph += [field(11, describe(name, array)) for name, array in inputs.items()] + [field(12, describe("made", first))]
    opsets = field(8, field(2, OPSET)) + field(8, field(1, MICROSOFT) + field(2, MICROSOFT_OPSET))
    return field(1, IR_VERSION) + field(7, b"".join(graph)) + opsets


def describe(name: str, array: Array) -> bytes:
    """A ValueInfoProto."""
    shape = b"".join(field(1, field(1, side)) for side in array.shape)
    return field(1, name) + field(2, field(1, field(1, KINDS[array.dtype.name]) + field(2, shape)))


def field(number: int, content: int | str | bytes) -> bytes:
    """A tagged field: a number, or what has a length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    encoded = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(encoded)) + encoded


def varint(number: int) -> bytes:
    """Seven bits a byte, lowest first."""
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)
