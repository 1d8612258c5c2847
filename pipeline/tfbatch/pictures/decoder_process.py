"""A process that decodes pictures, as seen by the one that started it; what it does is in `decoder.py`."""

import signal
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from socket import socket, socketpair

import numpy as np

from tfbatch.errors import DeviceUnavailable
from tfbatch.host import child
from tfbatch.host.machine import peak_memory_of
from tfbatch.pictures.exchange import Answer, bytes_of, fill, hear, tell
from tfbatch.pictures.framing import Size
from tfbatch.pictures.images import MAX_BYTES, Pixels, UnfitPicture
from tfbatch.pictures.views import View

LONGEST_ANSWER = 64 << 10  # bytes of JSON
MAX_ANSWERED = 2 * MAX_BYTES  # of pixels: less than enough, and one more picture

Found = Pixels | Size | UnfitPicture

LIMITS: dict[int, str] = {
    signal.SIGPROF: "decoding takes too much of the processor's time",
    signal.SIGALRM: "decoding takes too long",
}


class Decoder:
    """One such process."""

    def __init__(self) -> None:
        self._socket, theirs = socketpair()
        with theirs, close_if_it_fails(self._socket), held_back(child.FOR_THE_JOB):
            self._process = child.start_child(
                "pictures.decoder",
                theirs.fileno(),
                env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stderr=subprocess.DEVNULL,  # libtiff writes what it thinks of a picture there
            )
        try:
            hear(self._socket, LONGEST_ANSWER)
        except (EOFError, OSError):
            raise DeviceUnavailable(f"pictures cannot be decoded: {ending(self.end())} as it began") from None

    def ask(self, pictures: list[memoryview], view: View | None) -> list[Found]:
        """A view of each of the first pictures, as many as it gives at once, or the sizes of all.

        Raises:
            EOFError, OSError: the process ended, or what it says is no answer.
            MemoryError: this process has none for the answer.
        """
        tell(self._socket, {"view": view and asdict(view), "sizes": [each.nbytes for each in pictures]}, *pictures)
        try:
            return self._found(len(pictures), view)
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise OSError("what a decoder says is no answer") from error

    def _found(self, most: int, view: View | None) -> list[Found]:
        answers: list[Answer] = hear(self._socket, LONGEST_ANSWER)
        size = sum(map(bytes_of, answers))
        if not 0 < len(answers) <= most or size > MAX_ANSWERED:
            raise ValueError(f"{len(answers)} answers, {size:,} bytes")
        content: Pixels = np.empty(size, np.uint8)
        fill(self._socket, content.data)
        found: list[Found] = []
        for answer in answers:
            if "unfit" in answer:
                found.append(UnfitPicture(str(answer["unfit"])))
            elif view is None:
                width, height = answer["size"]
                found.append((int(width), int(height)))
            else:
                pixels, content = np.split(content, [bytes_of(answer)])
                found.append(pixels.view(answer["type"]).reshape(answer["shape"]))
        return found

    def end(self) -> int:
        """Let the process go; its exit status, negative where a signal ended it."""
        self._socket.close()
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    @property
    def peak_memory(self) -> int:
        return peak_memory_of(self._process.pid)


@contextmanager
def held_back(numbers: Collection[int]) -> Iterator[None]:
    """Within, this thread does not get these signals, nor does a process that it starts before it asks for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def close_if_it_fails(ours: socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        ours.close()
        raise


def is_of_others(status: int) -> bool:
    """Whether a process was ended by what its pictures need not have done: it was killed, perhaps for the memory of
    others, or stopped for so long that its time ran out."""
    return -status in (signal.SIGKILL, signal.SIGALRM)


def ending(status: int) -> str:
    """Why a process ended, by its exit status."""
    return LIMITS.get(-status) or f"the decoder {child.ending(status)}"
