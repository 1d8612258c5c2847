"""An ONNX file without its weights: what is left says where in the file they lie, so that onnxruntime maps
them from there. Read by it as a whole, they would be in memory beside what it makes of them.

Source: onnx.proto, for external data; protobuf's wire format.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

from tfbatch.errors import BadConfiguration, first_line
from tfbatch.protobuf import DATA_LOCATION, EXTERNAL_DATA, Span, field, fields, read

GRAPH = 7  # of a ModelProto
TENSOR = 5  # of a GraphProto
RAW_DATA = 9  # of a TensorProto
OTHER_DATA = {3, 4, 5, 6, 7, 10, 11, EXTERNAL_DATA, DATA_LOCATION}  # data spelled out, a part of it, its place
EXTERNAL = 1  # TensorProto.DataLocation
LEAST = 1 << 12  # bytes of a tensor; smaller ones stay where they are


def without_weights(path: Path) -> bytes:
    """An ONNX file, of the large tensors of its graph their places in the file alone.

    Raises:
        BadConfiguration: it cannot be read, or is not an ONNX file.
    """
    try:
        with path.open("rb") as file:

            def placed_graph(graph: Span) -> bytes:
                return copied(file, graph, TENSOR, lambda tensor: placed(file, tensor, path.name))

            return copied(file, (0, file.seek(0, os.SEEK_END)), GRAPH, placed_graph)
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {first_line(error)}") from error
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error


def copied(file: BinaryIO, message: Span, number: int, made: Callable[[Span], bytes]) -> bytes:
    """A message, its fields of a number made anew. In ONNX there are none of a fixed size outside of tensors."""
    return b"".join(
        field(each, value if span is None else made(span) if each == number else read(file, span))
        for each, span, value in fields(file, message)
    )


def placed(file: BinaryIO, tensor: Span, name: str) -> bytes:
    """A TensorProto, with the place of its data in the file of a name for the data, where that is large."""
    spans = {number: span for number, span, _ in fields(file, tensor)}
    start, end = spans.get(RAW_DATA) or (0, 0)
    if end - start < LEAST or set(spans) & OTHER_DATA:
        return read(file, tensor)
    described = b"".join(
        field(number, value if span is None else read(file, span))
        for number, span, value in fields(file, tensor)
        if number != RAW_DATA
    )
    place = {"location": name, "offset": str(start), "length": str(end - start)}
    entries = b"".join(field(EXTERNAL_DATA, field(1, key) + field(2, value)) for key, value in place.items())
    return described + entries + field(DATA_LOCATION, EXTERNAL)


class Unwritten:
    """A file that must not be written to as long as it is mapped. Another one may be put in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._descriptor)
        self._state = self._now()

    def check(self) -> None:
        """Say so where it was.

        Raises:
            BadConfiguration: what was computed since may be wrong.
        """
        if self._now() != self._state:
            raise BadConfiguration(
                f"{self._path} was written to while it was used; put a bundle in another's place as a whole, "
                f"and run the same command again"
            )

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns
