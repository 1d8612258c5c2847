"""Runs of the command line that can be stopped at any moment, and what must be true of each that ends."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from conftest import Finished, tfbatch_env

NUMBERS = count()
SECONDS = 60.0  # after which a run hangs


class Running:
    """A tfbatch process, which does not begin before `go`."""

    def __init__(self, address: Path, folder: Path, words: list[str]) -> None:
        self._out, self._err = (folder / f"{next(NUMBERS)}.{kind}" for kind in ("out", "err"))
        request = {"words": words, "env": tfbatch_env(), "out": str(self._out), "err": str(self._err)}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(address))
        self._connection.settimeout(SECONDS)
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())
        self.began = time.monotonic()

    def go(self) -> "Running":
        self._connection.sendall(b"!")
        self.began = time.monotonic()
        return self

    def send(self, number: int) -> None:
        """A signal, where there is still somebody to get it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ends_within(self, seconds: float) -> bool:
        return bool(select.select([self._connection], [], [], seconds)[0])

    def wait(self, seconds: float = SECONDS) -> Finished:
        """How it ended; what still runs after so long is ended, and fails the test."""
        self._connection.settimeout(seconds)
        try:
            code = int(self._answers.readline())
        except TimeoutError:
            self.send(signal.SIGKILL)
            raise
        finally:
            self._answers.close()
            self._connection.close()
        self.seconds = time.monotonic() - self.began
        out, err = (path.read_text() if path.exists() else "" for path in (self._out, self._err))
        return Finished(code, out, err)  # one that was killed at once has not even opened them

    def kill(self) -> Finished:
        self.send(signal.SIGKILL)
        return self.wait()


@dataclass(frozen=True)
class Server:
    """Starts runs."""

    address: Path
    folder: Path

    def start(self, *words: object) -> Running:
        return self.hold(*words).go()

    def hold(self, *words: object) -> Running:
        """A run that waits for `go`."""
        return Running(self.address, self.folder, [str(word) for word in words])

    def run(self, *words: object) -> Finished:
        return self.start(*words).wait()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server of forked runs; `folder` takes what they print."""
    address = folder / "address"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(listener.fileno())]
        with subprocess.Popen(command, pass_fds=[listener.fileno()], env=tfbatch_env()) as process:
            yield Server(address, folder)
            process.terminate()
