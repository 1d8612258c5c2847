"""A process that decodes pictures for another one, started by `decoders.py`.

Decoders of hostile bytes may crash, run on without end, or take all memory: here that costs one
picture. A request is what is wanted, as JSON, and the bytes of one picture or several; an answer, for each
picture, `unfit` with a reason or a `shape` and `type`, and then the pixels of those that have one, (H, W, 3)
or (H, W). Of several pictures the first ones are answered, until there are ENOUGH bytes of pixels: so few
go one by one, and no number of large ones is held at once.
"""

import resource
import signal
import sys
from socket import socket

import numpy as np
from PIL import Image

from tfbatch.host.child import FOR_THE_JOB
from tfbatch.host.process import KEPT, leave, settle_heap
from tfbatch.pictures.exchange import Answer, bytes_of, hear, take, tell
from tfbatch.pictures.images import UnfitPicture, measure, strips
from tfbatch.pictures.views import View, render

PROCESSOR_SECONDS = 20.0  # of this process, for one picture; a large one takes two or three
SECONDS = 60.0
MEMORY = 3 << 30  # bytes of address space; 50 megapixels of 16 bits take half of it
ENOUGH = 1 << 20  # bytes
LONGEST_REQUEST = 64 << 10  # bytes of JSON


def serve(requests: socket) -> None:
    """Answer until the other end is closed."""
    for number in FOR_THE_JOB:
        signal.signal(number, signal.SIG_IGN)
    settle_heap(KEPT)  # all of a few pictures goes at once: no holes, and no page is asked for twice
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    most = MEMORY if allowed == resource.RLIM_INFINITY else min(MEMORY, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tell(requests, "ready")
    while True:
        try:
            wanted = hear(requests, LONGEST_REQUEST)
            data = [bytes(take(requests, size)) for size in wanted["sizes"]]
        except (EOFError, ConnectionError):
            return
        view = wanted["view"] and View(**wanted["view"])
        answers, pictures = answer(data, view)
        limit_time(0, 0)  # who is to take them may have been stopped for the night
        tell(requests, answers)
        send_pixels(requests, pictures)


def limit_time(processor_seconds: float, seconds: float) -> None:
    """End the process when either is over; 0 is no limit."""
    signal.setitimer(signal.ITIMER_PROF, processor_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def answer(data: list[bytes], view: View | None) -> tuple[list[Answer], list[Image.Image]]:
    """What is said of the first of some pictures, and those of them that are sent."""
    answers: list[Answer] = []
    pictures: list[Image.Image] = []
    for each in data:
        said, picture = answer_one(each, view)
        answers.append(said)
        if picture is not None:
            pictures.append(picture)
        if sum(map(bytes_of, answers)) >= ENOUGH:
            break
    return answers, pictures


def answer_one(data: bytes, view: View | None) -> tuple[Answer, Image.Image | None]:
    """Decode a picture, or measure it where no view of it is wanted."""
    limit_time(PROCESSOR_SECONDS, SECONDS)
    if view is None:
        return {"size": measure(data)}, None
    try:
        picture = render(data, view)
    except UnfitPicture as error:
        return {"unfit": str(error)}, None
    shape = (picture.height, picture.width, *[3] * (picture.mode == "RGB"))
    return {"shape": shape, "type": "float32" if picture.mode == "F" else "uint8"}, picture


def send_pixels(requests: socket, pictures: list[Image.Image]) -> None:
    """Send pictures a part at a time: a copy of all of a large one would double what this process takes."""
    part = bytearray()
    for picture in pictures:
        for _, strip in strips(picture):
            part += np.ascontiguousarray(strip).data.cast("B")
            if len(part) >= ENOUGH:
                requests.sendall(part)
                part.clear()
    if part:
        requests.sendall(part)


def main() -> None:
    """Serve on the descriptor that is the first argument."""
    serve(socket(fileno=int(sys.argv[1])))
    leave(0)
