"""What an ONNX graph takes and gives, as its file has it.

Source: GraphProto, ValueInfoProto, TypeProto and TensorShapeProto of onnx.proto.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tfbatch.bundles.protobuf import Span, fields, read_text
from tfbatch.errors import BadConfiguration

GRAPH, INPUT, OUTPUT = 7, 11, 12  # of a model; of a graph
NAME, TYPE = 1, 2  # of an input or output
TENSOR, ELEMENT, SHAPE, DIMENSION, SIZE = 1, 1, 2, 1, 1  # on the way down from a type, each in the one before
ELEMENTS = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64", 16: "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or output: the type of its elements, and its dimensions, None where they are dynamic."""

    name: str
    element: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The inputs and outputs of a graph by name, in their order."""

    inputs: dict[str, Value]
    outputs: dict[str, Value]


def read_signature(path: Path) -> Signature:
    """The signature of a model file, none of whose weights are read.

    Raises:
        BadConfiguration: it is not a readable ModelProto.
    """
    try:
        with path.open("rb") as file:
            whole = (0, file.seek(0, os.SEEK_END))
            (graph,) = list(inside(file, whole, GRAPH))[-1:] or [(0, 0)]
            inputs = [read_value(file, span) for span in inside(file, graph, INPUT)]
            outputs = [read_value(file, span) for span in inside(file, graph, OUTPUT)]
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {error.strerror}") from error
    return Signature(inputs={value.name: value for value in inputs}, outputs={value.name: value for value in outputs})


def read_value(file: BinaryIO, span: Span) -> Value:
    """A ValueInfoProto; what is no tensor has the element `unknown`."""
    name = "".join(read_text(file, found) for found in inside(file, span, NAME))
    element: str = "unknown"
    shape: list[int | None] = []
    for kind in inside(file, span, TYPE):
        for tensor in inside(file, kind, TENSOR):
            element = ELEMENTS.get(number_in(file, tensor, ELEMENT) or 0, "unknown")
            for dimensions in inside(file, tensor, SHAPE):
                shape = [number_in(file, dimension, SIZE) for dimension in inside(file, dimensions, DIMENSION)]
    return Value(name=name, element=element, shape=tuple(shape))


def inside(file: BinaryIO, span: Span, wanted: int) -> Iterator[Span]:
    """Where the messages or strings of one field of a message lie."""
    return (found for number, found, _ in fields(file, span) if number == wanted and found is not None)


def number_in(file: BinaryIO, span: Span, wanted: int) -> int | None:
    """A field of a message that is an integer; None where it is not there."""
    values = [value for number, found, value in fields(file, span) if number == wanted and found is None]
    return values[-1] if values else None
