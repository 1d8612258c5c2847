"""SIGINT, SIGTERM and SIGHUP, heard on a thread of their own.

Python calls its handlers on the main thread, between two of its steps: not while that is inside a
library which waits for a disk or a store. So a signal's number is put into a pipe by the part of the
interpreter that runs at once, on whatever thread. Processes that are started know nothing of it,
and one that is forked would put its signals into the same pipe, if that were not closed to it.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

from tfbatch.stages import start_thread

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """From now on calls `end` with the number of each that comes; made on the main thread."""

    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end
        self._ask: Callable[[int], None] | None = None
        self._pipe, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        for number in HEARD:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, leave_to_the_thread)
        start_thread(self._listen)

    def ask_first(self, ask: Callable[[int], None]) -> None:
        """Have the next one call this instead."""
        self._ask = ask

    def _listen(self) -> None:
        while True:
            (number,) = os.read(self._pipe, 1)
            call, self._ask = self._ask or self._end, None
            call(number)


def leave_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Do nothing here; without a handler in Python nothing would come through the pipe."""
