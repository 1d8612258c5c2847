"""What this process and its decoders tell one another over a socket: JSON, and bytes behind it, of pictures as they
are encoded or of pixels. How many there are is in the JSON.

Each message is taken in one or two calls of the system, however long it takes to come: after every call a thread
waits for its turn with Python, where sixteen threads decode for longer than the call takes.
"""

import json
import math
import struct
from socket import MSG_WAITALL, socket
from typing import Any

LENGTH = struct.Struct("<I")  # of the JSON, in bytes
SIZES = {"uint8": 1, "float32": 4}  # bytes of a number, by numpy's names of types

Answer = dict[str, Any]  # what is said of a picture


def bytes_of(answer: Answer) -> int:
    """How many bytes of pixels come with what is said of a picture."""
    if "shape" not in answer:
        return 0
    if min(answer["shape"]) < 0:
        raise ValueError(f"a picture of shape {answer['shape']}")
    return math.prod(answer["shape"]) * SIZES[answer["type"]]


def tell(other: socket, said: object, *content: memoryview) -> None:
    """Send something and the bytes behind it."""
    words = json.dumps(said).encode()
    other.sendall(LENGTH.pack(len(words)) + words)
    if content:
        other.sendall(content[0] if len(content) == 1 else b"".join(content))


def hear(other: socket, most: int) -> Any:
    """What the other process says, in no more bytes than `most`.

    Raises:
        EOFError, OSError: it is gone, or says more.
        ValueError, RecursionError: it says no JSON.
    """
    (length,) = LENGTH.unpack(take(other, LENGTH.size))
    if length > most:
        raise OSError(f"{length:,} bytes of JSON")
    return json.loads(take(other, length))


def take(other: socket, size: int) -> bytearray:
    """So many bytes, for which see `fill`."""
    content = bytearray(size)
    fill(other, memoryview(content))
    return content


def fill(other: socket, place: memoryview) -> None:
    """Take as many bytes as there is place for.

    Raises:
        EOFError, OSError: the other process is gone.
    """
    while place:
        received = other.recv_into(place, flags=MSG_WAITALL)
        if not received:
            raise EOFError
        place = place[received:]
