"""Pictures, decoded by processes of their own: what a hostile one does, it does to a process that
is begun anew, and the picture is its row's error.

Threads cannot give that: a crash in a decoder takes the whole process with it, and a thread that
hangs can be neither ended nor bounded in memory. Each thread that decodes borrows a process; it
costs a tenth of a millisecond and two copies a picture, about a fifth more for one of 500 pixels.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from multiprocessing import Pipe
from pathlib import Path
from threading import Semaphore

import numpy as np
import pyarrow as pa

from tfbatch.errors import DeviceUnavailable
from tfbatch.images import MAX_BYTES, Pixels, UnfitPicture, View
from tfbatch.machine import available_threads, peak_memory_of

ENDINGS = {
    signal.SIGPROF: "decoding takes too much of the processor's time",
    signal.SIGALRM: "decoding takes too long",
    signal.SIGKILL: "the decoder was killed, perhaps for the memory it took",
}


class Decoder:
    """One such process."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        # Our folder comes last, and the working directory not at all: a file there is no module of ours.
        ours = str(Path(__file__).parents[1])
        program = f"import sys; sys.path.append({ours!r}); from tfbatch.decoder import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # libtiff writes what it thinks of a picture there
            start_new_session=True,  # ^C is for the job, which lets this process go
        )
        theirs.close()
        try:
            self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise DeviceUnavailable(f"pictures cannot be decoded: {ending(self.end())} as it began") from None

    def ask(self, data: memoryview, view: View | None) -> Pixels | int:
        """A view of a picture, or how many pixels it has.

        Raises:
            UnfitPicture: the decoder refused it.
            EOFError, OSError: the process ended.
        """
        self._pipe.send_bytes(json.dumps(view and asdict(view)).encode())
        self._pipe.send_bytes(data)
        answer = json.loads(self._pipe.recv_bytes(maxlength=4096))
        if "unfit" in answer:
            raise UnfitPicture(answer["unfit"])
        if view is None:
            return int(answer["pixels"])
        pixels: Pixels = np.empty(answer["shape"], answer["type"])
        received, content = 0, pixels.data.cast("B")
        while received < len(content):
            received += self._pipe.recv_bytes_into(content, received)
        return pixels

    def end(self) -> int:
        """Let the process go; its exit status, negative where a signal ended it."""
        self._pipe.close()
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    @property
    def peak_memory(self) -> int:
        return peak_memory_of(self._process.pid)


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
        pixels = self._ask(data, view)
        assert not isinstance(pixels, int)
        return pixels

    def count(self, data: pa.Buffer) -> int:
        """How many pixels a picture has by its header, 0 where `render` would refuse it."""
        try:
            pixels = self._ask(data, None)
        except UnfitPicture:
            return 0
        assert isinstance(pixels, int)
        return pixels

    def _ask(self, data: pa.Buffer, view: View | None) -> Pixels | int:
        if data.size > MAX_BYTES:
            raise UnfitPicture(f"too_large: {data.size:,} bytes are over {MAX_BYTES:,}")
        with self._free:
            return self._ask_one(data, view)

    def _ask_one(self, data: pa.Buffer, view: View | None, *, is_again: bool = False) -> Pixels | int:
        try:
            decoder = self._idle.popleft()
        except IndexError:
            decoder = Decoder()
            self._started.append(decoder)
        try:
            answer = decoder.ask(memoryview(data), view)
        except UnfitPicture:
            self._idle.append(decoder)
            raise
        except (EOFError, OSError):
            self._started.remove(decoder)
            status = decoder.end()
            if status == -signal.SIGKILL and not is_again:  # perhaps for the memory of others
                return self._ask_one(data, view, is_again=True)
            raise UnfitPicture(f"undecodable: {ending(status)}") from None
        self._idle.append(decoder)
        return answer

    def peak_memory(self) -> int:
        """The most memory, in bytes, that the processes there are held each."""
        return sum(decoder.peak_memory for decoder in self._started)

    def close(self) -> None:
        """Let all processes go."""
        while self._started:
            self._started.pop().end()
        self._idle.clear()


def ending(status: int) -> str:
    """Why a process ended, by its exit status."""
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"the decoder ended with exit code {status}"
    return ENDINGS.get(number, f"the decoder crashed ({number.name})")


DECODERS = Decoders()
atexit.register(DECODERS.close)
