"""Pictures, decoded by processes of their own: what a hostile one does, it does to a process that
is begun anew, and the picture is its row's error.

Threads cannot give that: a crash in a decoder takes the whole process with it, and a thread that
hangs can be neither ended nor bounded in memory. Each thread that decodes borrows a process. Pictures that
are not large go there together; where they end the process, each goes again by itself.
"""

import atexit
from collections import deque
from collections.abc import Iterable, Iterator
from threading import Semaphore

import numpy as np
import pyarrow as pa

from tfbatch.host.machine import available_threads
from tfbatch.pictures.decoder_process import Decoder, Found, ending, is_of_others
from tfbatch.pictures.framing import Size
from tfbatch.pictures.images import MAX_BYTES, Pixels, UnfitPicture
from tfbatch.pictures.views import View

TOGETHER, MANY = 512 << 10, 64  # pictures that go together: bytes as they are encoded, and how many


class Decoders:
    """As many processes as ask at once, up to a limit: then they wait for one another."""

    def __init__(self) -> None:
        self._idle: deque[Decoder] = deque()
        self._started: list[Decoder] = []
        self._free = Semaphore(available_threads())

    def limit(self, processes: int) -> None:
        """Have no more processes than this; before the first one is asked for."""
        self._free = Semaphore(processes)

    def render(self, data: pa.Buffer, view: View) -> Pixels:
        """A view of a picture.

        Raises:
            UnfitPicture: it is refused, or ended the process; the reason is its row's.
        """
        (pixels,) = self.render_all([data], view)
        if isinstance(pixels, UnfitPicture):
            raise pixels
        return pixels

    def render_all(self, cells: Iterable[pa.Buffer], view: View) -> Iterator[Pixels | UnfitPicture]:
        """A view of each picture, or why there is none, as for `render`; not many are held at once."""
        for found in self._ask_all(cells, view):
            assert not isinstance(found, tuple)
            yield found

    def measure_all(self, cells: Iterable[pa.Buffer]) -> Iterator[Size]:
        """The width and height of each picture by its header, zeros where `render` would refuse it."""
        for found in self._ask_all(cells, None):
            assert not isinstance(found, np.ndarray)
            yield (0, 0) if isinstance(found, UnfitPicture) else found

    def _ask_all(self, cells: Iterable[pa.Buffer], view: View | None) -> Iterator[Found]:
        for pictures in together(cells):
            answered = 0
            while answered < len(pictures):
                found = self._ask(pictures[answered:], view)
                yield from found
                answered += len(found)
                if not found:
                    yield from (answer for picture in pictures[answered:] for answer in self._ask([picture], view))
                    break

    def _ask(self, pictures: list[memoryview], view: View | None) -> list[Found]:
        """What is found of the first of some pictures; nothing where several ended the process: any
        of them may have."""
        if (size := pictures[0].nbytes) > MAX_BYTES:
            return [UnfitPicture(f"too_large: {size:,} bytes are over {MAX_BYTES:,}")]
        with self._free:
            return self._try(pictures, view)

    def _try(self, pictures: list[memoryview], view: View | None, *, is_again: bool = False) -> list[Found]:
        try:
            decoder = self._idle.popleft()
        except IndexError:
            decoder = Decoder()
            self._started.append(decoder)
        try:
            found = decoder.ask(pictures, view)
        except MemoryError:  # of this process, which is no picture's fault
            self._lose(decoder)
            raise
        except (EOFError, OSError):
            status = self._lose(decoder)
            if len(pictures) > 1:
                return []
            if is_of_others(status) and not is_again:
                return self._try(pictures, view, is_again=True)
            return [UnfitPicture(f"undecodable: {ending(status)}")]
        self._idle.append(decoder)
        return found

    def _lose(self, decoder: Decoder) -> int:
        """Let a process go that is of no more use; its exit status."""
        self._started.remove(decoder)
        return decoder.end()

    def peak_memory(self) -> int:
        """The most memory, in bytes, that the processes there are held each."""
        return sum(decoder.peak_memory for decoder in self._started)

    def close(self) -> None:
        """Let all processes go."""
        while self._started:
            self._started.pop().end()
        self._idle.clear()


def together(cells: Iterable[pa.Buffer]) -> Iterator[list[memoryview]]:
    """Pictures in order, in lists of no more than TOGETHER bytes, or of one that has more."""
    group: list[memoryview] = []
    size = 0
    for cell in cells:
        picture = memoryview(cell)
        if group and (size + picture.nbytes > TOGETHER or len(group) == MANY):
            yield group
            group, size = [], 0
        group.append(picture)
        size += picture.nbytes
    if group:
        yield group


DECODERS = Decoders()
atexit.register(DECODERS.close)
