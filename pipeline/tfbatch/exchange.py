"""What this process and its decoders tell one another over a socket: JSON, and bytes behind it, how many that says.

Each is taken in one call of the system, however long it takes to come: after every call a thread waits for its turn
with Python, where sixteen threads decode for longer than the call takes.
"""

import json
import struct
from socket import MSG_WAITALL, socket
from typing import Any

LENGTH = struct.Struct("<I")  # of the JSON, in bytes


def tell(other: socket, said: object, *content: memoryview) -> None:
    """Send something and the bytes behind it."""
    words = json.dumps(said).encode()
    other.sendall(b"".join([LENGTH.pack(len(words)), words, *content]))


def hear(other: socket, most: int) -> Any:
    """What the other process says, in no more bytes than `most`.

    Raises:
        EOFError, OSError: it is gone, or says more.
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
