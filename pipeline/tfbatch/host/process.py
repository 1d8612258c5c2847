"""What a process changes about itself before it begins, its files, its heap, its pools of threads, what is imported;
and how it ends."""

import atexit
import ctypes
import os
import sys
from contextlib import suppress
from typing import NoReturn

from tfbatch.host.machine import available_threads

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
KEPT = 16 << 20  # bytes
LARGE = 1 << 20  # bytes from which on a block is in no heap
LARGE_IN_SHARED = 1 << 18  # the same where all threads have one heap
SHARE_HEAP = 2  # processors that one heap is enough for


def keep_standard_files() -> None:
    """Have no file that is opened later take the place of a standard one that is closed: what the C library, or Python
    when it says where threads stand, writes to standard error would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free, which is this one
            os.set_inheritable(number, True)


def settle_heap(large: int | None = None) -> None:
    """Have glibc give large blocks back when they are freed, and on a small machine keep one heap, Arrow's too.

    A block is large from LARGE bytes on, with one heap from LARGE_IN_SHARED on, or from `large` on.

    Left alone it learns to keep blocks of up to 32 MB, in a heap for each thread, and pictures of all sizes
    leave those full of holes. One is enough for two processors. From it the outputs of batches, a few hundred
    kilobytes of all sizes, are kept out too, or what is small comes to lie in their holes, and the heap grows by a
    third. With more its threads would wait for one another: sixteen thirty times as long as they work, and with as
    many heaps as processors, some of which threads then share, still a third longer. What small blocks take is kept,
    up to KEPT: to give it back and take it again costs a third of the time. Arrow, imported from here on or in a
    child of this process, would keep memory of its own; whoever has chosen its pool keeps that.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        shares = available_threads() <= SHARE_HEAP
        mallopt(M_MMAP_THRESHOLD, large or (LARGE_IN_SHARED if shares else LARGE))
        mallopt(M_TRIM_THRESHOLD, KEPT)
        if shares:
            mallopt(M_ARENA_MAX, 1)


def limit_threads(threads: int) -> None:
    """Hold the thread pools of tokenizers and Arrow to a number; before their first use."""
    import pyarrow as pa

    os.environ["RAYON_NUM_THREADS"] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    pa.set_cpu_count(threads)


class NoPandas:
    """Finds no package of that name; for all others the next finder is asked."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name)


def do_without_pandas() -> None:
    """Have Arrow's only look for pandas be in vain: it looks when it is given its first value, to know pandas'
    own from others, and importing it takes as long as loading a model."""
    import pyarrow as pa

    sys.meta_path.insert(0, NoPandas)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(NoPandas)


def leave(exit_code: int) -> NoReturn:
    """End here, when all has been said and closed.

    What was registered for the end is done. What goes with the process is not taken apart piece by piece first, a
    model and libraries of hundreds of megabytes: that is a sixth of a short job, and while it lasts a signal would
    still change the exit code that was said.
    """
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(OSError, ValueError):  # the second where it is closed
            stream.flush()
    os._exit(exit_code)
