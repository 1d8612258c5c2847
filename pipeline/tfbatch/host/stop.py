"""How a job is asked to end before it is done: by a signal, a limit of time, or a standstill.

Asking sets a flag, which the stages look at between two items of work: nothing is torn out of the
middle of a commit. A thread that cannot look, since it hangs, is not waited for without end.
"""

import time
from collections.abc import Callable
from contextlib import suppress

from tfbatch.errors import TfbatchError, TryAgain

GRACE = 20.0  # seconds from asking to giving up on what does not look


class Stop:
    """Asked of from any thread, heard by all; `beat` says that something was done."""

    def __init__(self) -> None:
        self.asked: TfbatchError | None = None
        self.asked_at = self.last_beat = self.started = time.monotonic()
        self._enders: list[Callable[[], None]] = []

    def ask(self, error: TfbatchError) -> None:
        """Have the job end with this error; the first one asked for counts."""
        if self.asked is None:
            self.asked_at = time.monotonic()
            self.asked = error
            for end in self._enders:
                with suppress(Exception):  # who asks has to stay: to end the process if this is not heard
                    end()

    def at_once(self, end: Callable[[], None]) -> None:
        """Call `end` when a stop is asked for, to cut short what takes long."""
        self._enders.append(end)

    def check(self) -> None:
        """Raise what was asked for, if anything was."""
        if self.asked is not None:
            raise self.asked

    def beat(self) -> None:
        """Hear a stop, else note that the job gets on."""
        self.check()
        self.last_beat = time.monotonic()


class Watchdog:
    """Looks at the clock now and then, on a thread of its own.

    `timeout` bounds the whole job, `stall_timeout` the time in which nothing at all gets done, both
    in seconds. `give_up` ends the process where a stop was asked for and is not heard; `say_stacks`
    tells where it stands.
    """

    def __init__(
        self,
        stop: Stop,
        timeout: float | None,
        stall_timeout: float | None,
        say_stacks: Callable[[], None],
        give_up: Callable[[TfbatchError], None],
    ) -> None:
        self._stop = stop
        self._timeout = timeout
        self._stall_timeout = stall_timeout
        self._say_stacks = say_stacks
        self._give_up = give_up

    def look(self) -> None:
        """Ask for a stop where a limit is passed; give up where one was asked for long ago."""
        now, stop = time.monotonic(), self._stop
        if stop.asked is not None:
            if now - stop.asked_at > GRACE:
                self._say_stacks()  # of who did not hear it
                self._give_up(stop.asked)
        elif self._timeout is not None and now - stop.started > self._timeout:
            stop.ask(TryAgain(f"not done in {self._timeout:g} s (--timeout); the same command goes on from there"))
        elif self._stall_timeout is not None and now - stop.last_beat > self._stall_timeout:
            self._say_stacks()
            stop.ask(
                TryAgain(
                    f"nothing got done in {self._stall_timeout:g} s (--stall-timeout), the stacks above say where it "
                    f"stood; the same command goes on from there"
                )
            )
