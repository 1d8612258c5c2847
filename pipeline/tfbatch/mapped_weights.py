"""An ONNX file without its weights: what is left says where in the file they lie, so that onnxruntime maps
them from there. A file that it reads itself is in memory three times while it is loaded.

As long as a session is open the file must not be written to; another one may be put in its place.
Source: onnx.proto, for external data; protobuf's wire format.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tfbatch.errors import BadConfiguration
from tfbatch.protobuf import DATA_LOCATION, EXTERNAL_DATA, Span, fields
from tfbatch.tiny_graph import field

GRAPH = 7  # of a ModelProto
TENSOR = 5  # of a GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of a TensorProto
EXTERNAL = 1  # TensorProto.DataLocation
LEAST = 1 << 12  # bytes of a tensor; smaller ones stay where they are


def without_weights(path: Path) -> bytes:
    """An ONNX file, of the large tensors of its graph their places in the file alone.

    Raises:
        BadConfiguration: it is not an ONNX file.
    """
    try:
        with path.open("rb") as file:
            model = (0, file.seek(0, os.SEEK_END))
            return copied(
                file,
                model,
                GRAPH,
                lambda graph: copied(file, graph, TENSOR, lambda tensor: placed(file, tensor, path.name)),
            )
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error


def copied(file: BinaryIO, message: Span, number: int, made: Callable[[Span], bytes]) -> bytes:
    """A message, its fields of a number made anew."""
    return b"".join(
        field(each, value if span is None else made(span) if each == number else read(file, span))
        for each, span, value in fields(file, message)
    )


def placed(file: BinaryIO, tensor: Span, name: str) -> bytes:
    """A TensorProto, with the place of its data in the file of a name for the data, where that is large."""
    spans = {number: span for number, span, _ in fields(file, tensor)}
    start, end = spans.get(RAW_DATA) or (0, 0)
    if end - start < LEAST or set(spans) - {DIMS, DATA_TYPE, NAME, RAW_DATA}:
        return read(file, tensor)
    described = b"".join(
        field(number, value if span is None else read(file, span))
        for number, span, value in fields(file, tensor)
        if number != RAW_DATA
    )
    place = {"location": name, "offset": str(start), "length": str(end - start)}
    entries = b"".join(field(EXTERNAL_DATA, field(1, key) + field(2, value)) for key, value in place.items())
    return described + entries + field(DATA_LOCATION, EXTERNAL)


def read(file: BinaryIO, span: Span) -> bytes:
    """What lies in a span of a file."""
    file.seek(span[0])
    return file.read(span[1] - span[0])
