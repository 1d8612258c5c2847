"""A worker as the job's process has it: how it begins, is spoken to, stands still and ends."""

import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from subprocess import Popen, TimeoutExpired
from typing import IO, Any

from tfbatch.errors import TryAgain
from tfbatch.host.child import start_child
from tfbatch.plan import Part

SECONDS_TO_END = 5.0  # that a process has for its last steps
SECONDS_TO_SAY = 1.0  # that one has to say where it stands


@dataclass(eq=False)
class Worker:
    """One of them: the parts it has, and how much of those is scored.

    It writes to `stacks` where it stands when it crashes or is asked, which once it is over is in
    `stood`; `heard` is when it last said anything or was given something to do, by the monotonic clock.
    """

    name: str
    device: str
    process: Popen[bytes]
    pipe: "Connection[Any, Any]"
    stacks: IO[bytes]
    heard: float = field(default_factory=time.monotonic)
    is_silent: bool = False
    stood: str = ""
    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    errors: int = 0
    is_free: bool = False

    def tell(self, message: object) -> None:
        """Send a message; that a worker is gone is found when it is listened to."""
        self.heard = time.monotonic()
        with suppress(OSError):
            self.pipe.send(message)

    def hear(self) -> object:
        """Its next message.

        Raises:
            EOFError, OSError: it is gone.
        """
        message = self.pipe.recv()
        self.heard, self.is_silent = time.monotonic(), False
        return message

    def end_if_silent(self, limit: float) -> None:
        """Where it got nothing done for so many seconds have it say where it stands, and then end it.

        Raises:
            TryAgain: it stands where nothing ends it.
        """
        over = time.monotonic() - self.heard - limit
        if self.is_free or over <= 0:
            return
        if not self.is_silent:
            self.is_silent = True
            self.process.send_signal(signal.SIGUSR1)
        elif over > SECONDS_TO_SAY + SECONDS_TO_END:
            raise TryAgain(
                f"{self.name} on {self.device} got nothing done in {limit:g} s (--stall-timeout) and cannot be "
                f"ended: a disk or driver does not answer; finished parts are kept, the same command goes on from "
                f"there"
            )
        elif over > SECONDS_TO_SAY:
            self.process.kill()

    def end(self) -> int:
        """Wait for the end of a process that has nothing more to say; its exit status.

        One that nothing ends is left behind: nobody records what it may write yet.
        """
        self.pipe.close()
        status = -signal.SIGKILL
        try:
            status = self.process.wait(SECONDS_TO_END)
        except TimeoutExpired:
            self.process.kill()
            with suppress(TimeoutExpired):
                status = self.process.wait(SECONDS_TO_END)
        with self.stacks as stacks:
            stacks.seek(0)
            self.stood = stacks.read().decode(errors="replace").strip()
        return status


def start_worker(name: str, device: str, life: int, keep: list[int]) -> Worker:
    """Start one; it ends when nobody can write to the pipe `life` any more, and leaves the descriptors `keep` open."""
    ours, theirs = Pipe()
    stacks = tempfile.TemporaryFile()  # noqa: SIM115 -- closed when the process is over
    process = start_child("workers.worker", theirs.fileno(), life, stacks.fileno(), keep=keep)
    theirs.close()
    return Worker(name=name, device=device, process=process, pipe=ours, stacks=stacks)
