"""A process that decodes pictures for another one, started by `decoders.py`.

Decoders of hostile bytes may crash, run on without end, or take all memory: here that costs one
picture. A request is two messages, what is wanted as JSON and the picture's bytes; the answer is
JSON, `unfit` with a reason or `shape` and `type`, and then, where there is a shape, pixels (H, W, 3)
or (H, W) in strips.
"""

import json
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tfbatch.images import UnfitPicture, View, count, render, strips
from tfbatch.machine import return_freed_memory

PROCESSOR_SECONDS = 20.0  # of this process, for one picture; a large one takes two or three
SECONDS = 60.0
MEMORY = 3 << 30  # bytes of address space; 50 megapixels of 16 bits take half of it


def serve(requests: Connection) -> None:
    """Answer until the other end is closed."""
    return_freed_memory()
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if allowed == resource.RLIM_INFINITY else min(MEMORY, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests.send_bytes(b"ready")
    while True:
        try:
            wanted, data = json.loads(requests.recv_bytes()), requests.recv_bytes()
        except (EOFError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)  # ends the process, as the other one does
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        answer(requests, wanted, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def answer(requests: Connection, wanted: dict[str, Any] | None, data: bytes) -> None:
    """Decode one picture, or count its pixels where no view of it is wanted."""

    def say(**words: object) -> None:
        requests.send_bytes(json.dumps(words).encode())

    if wanted is None:
        say(pixels=count(data))
        return
    try:
        picture = render(data, View(**wanted))
    except UnfitPicture as error:
        say(unfit=str(error))
        return
    shape = (picture.height, picture.width, *[3] * (picture.mode == "RGB"))
    say(shape=shape, type="float32" if picture.mode == "F" else "uint8")
    for _, strip in strips(picture):  # a copy of all of it would double what this process takes
        requests.send_bytes(np.ascontiguousarray(strip).data.cast("B"))


def main() -> None:
    """Serve on the descriptor that is the first argument."""
    serve(Connection(int(sys.argv[1])))
