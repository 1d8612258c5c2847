"""An ONNX file without its weights: what is left says where they lie. A runtime that reads the whole file has
them in memory once more, beside what it makes of them.

onnxruntime is told where in the file, and maps it; OpenVINO, which follows no link, where in memory it is mapped.

Source: onnx.proto, for external data; protobuf's wire format; onnxruntime's `*/_ORT_MEM_ADDR_/*`, which OpenVINO
knows too.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

import numpy as np

from tfbatch.bundles.protobuf import DATA_LOCATION, EXTERNAL_DATA, Span, field, fields, read
from tfbatch.errors import BadConfiguration, first_line
from tfbatch.host.hashes import State, is_as_hashed, state_of

GRAPH = 7  # of a ModelProto
TENSOR = 5  # of a GraphProto
RAW_DATA = 9  # of a TensorProto
OTHER_DATA = {3, 4, 5, 6, 7, 10, 11, EXTERNAL_DATA, DATA_LOCATION}  # data spelled out, a part of it, its place
EXTERNAL = 1  # TensorProto.DataLocation
LEAST = 1 << 12  # bytes of a tensor; smaller ones stay where they are
IN_MEMORY = "*/_ORT_MEM_ADDR_/*"  # a location, to which an offset is an address


def without_weights(path: Path) -> bytes:
    """An ONNX file, of the large tensors of its graph their places in the file alone.

    Raises:
        BadConfiguration: it cannot be read, or is not an ONNX file.
    """
    with readable(path), path.open("rb") as file:
        return _without_weights(file, file.seek(0, os.SEEK_END), path.name)


def mapped(path: Path) -> tuple[bytes, "Mapped"]:
    """An ONNX file, of the large tensors of its graph their places in memory alone, and that memory, which is to be
    kept as long as they are read. A file that is cut short meanwhile ends the process (SIGBUS).

    Raises:
        BadConfiguration: it cannot be read, or is not an ONNX file.
    """
    with readable(path):
        memory = Mapped(path)
        with os.fdopen(os.dup(memory.descriptor), "rb") as file:
            return _without_weights(file, memory.size, IN_MEMORY, memory.address), memory


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of a file that is not there, not to be read or not ONNX as what they are."""
    try:
        yield
    except OSError as error:
        raise BadConfiguration(f"{path} cannot be read: {first_line(error)}") from error
    except ValueError as error:
        raise BadConfiguration(f"{path} is not an ONNX file: {error}") from error


def _without_weights(file: BinaryIO, end: int, location: str, start: int = 0) -> bytes:
    """An open ONNX file of so many bytes, which begins at `start` of a location for weights."""

    def placed_graph(graph: Span) -> bytes:
        return copied(file, graph, TENSOR, lambda tensor: placed(file, tensor, location, start))

    return copied(file, (0, end), GRAPH, placed_graph)


def copied(file: BinaryIO, message: Span, number: int, made: Callable[[Span], bytes]) -> bytes:
    """A message, its fields of a number made anew. In ONNX there are none of a fixed size outside of tensors."""
    return b"".join(
        field(each, value if span is None else made(span) if each == number else read(file, span))
        for each, span, value in fields(file, message)
    )


def placed(file: BinaryIO, tensor: Span, location: str, start: int) -> bytes:
    """A TensorProto; where its data is large, its place in a location that the file begins in at `start`."""
    spans = {number: span for number, span, _ in fields(file, tensor)}
    first, end = spans.get(RAW_DATA) or (0, 0)
    if end - first < LEAST or set(spans) & OTHER_DATA:
        return read(file, tensor)
    described = b"".join(
        field(number, value if span is None else read(file, span))
        for number, span, value in fields(file, tensor)
        if number != RAW_DATA
    )
    place = {"location": location, "offset": str(start + first), "length": str(end - first)}
    entries = b"".join(field(EXTERNAL_DATA, field(1, key) + field(2, value)) for key, value in place.items())
    return described + entries + field(DATA_LOCATION, EXTERNAL)


class Unwritten:
    """A file that must not be written to as long as it is mapped. Another one may be put in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self.descriptor)
        self._state = self._now()
        if not is_as_hashed(path, self._state):
            raise self._other()

    def check_place(self) -> None:
        """Look, once it was read by its path, whether that is still this file's.

        Raises:
            BadConfiguration: what was read may be another file.
        """
        if state_of(self._path.stat()) != self._state:
            raise self._other()

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

    def _other(self) -> BadConfiguration:
        return BadConfiguration(
            f"{self._path} is not as it was when it was checked: it was written to, or another was put in its place; "
            f"run the same command again"
        )

    def _now(self) -> State:
        return state_of(os.fstat(self.descriptor))


class Mapped(Unwritten):
    """Such a file in memory, at an `address`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._memory = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
        self.size = len(self._memory)
        self.address = np.frombuffer(self._memory, np.uint8).ctypes.data

    def let_go(self) -> None:
        """Count as memory of this process no more; what is read again comes from the file again."""
        self._memory.madvise(mmap.MADV_DONTNEED)
