"""System calls of a run, seen and struck by strace: one call fails, or is the last."""

import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.runs import SECONDS, Running

WRITING = ("write", "pwrite64", "ftruncate")
SYNCING = ("fsync", "fdatasync", "syncfs")
NAMING = ("link", "linkat", "rename", "renameat", "renameat2")
OTHERS = ("openat", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "flock")
CHANGES_NOTHING = re.compile(r"openat\(.*\bO_RDONLY\b(?!.*O_CREAT)")
CALL = re.compile(r"(\w+)\(")

Point = tuple[str, int]  # a system call's name, and which one of that name it is, from 1


def can_trace(running: Running) -> bool:
    """Whether strace is here and may look at a run, which is ended."""
    if shutil.which("strace") is None:
        running.kill()
        return False
    with traced(running, "-e", "trace=write") as strace:
        may = strace.poll() is None
        running.kill()
    return may


@contextmanager
def traced(running: Running, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Have strace see the main thread of a run, which alone writes, from before it begins."""
    command = ["strace", "-qq", "-p", str(running.pid), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        status = Path(f"/proc/{running.pid}/status")
        while strace.poll() is None and "TracerPid:\t0\n" in status.read_text():
            time.sleep(0.001)
        yield strace
        try:
            strace.wait(SECONDS)
        except subprocess.TimeoutExpired:
            running.send(signal.SIGKILL)
            raise


def strike(running: Running, point: Point, how: str) -> None:
    """Let a run go, to meet `how` (`signal=KILL`, `error=EIO`) at one of its system calls."""
    name, number = point
    with traced(running, "-e", f"trace={name}", "-e", f"inject={name}:{how}:when={number}"):
        running.go()


def points_of(running: Running, out: Path, log: Path, calls: tuple[str, ...]) -> list[Point]:
    """The system calls in which a run changes its output; it comes to its end."""
    with traced(running, "-y", "-e", f"trace={','.join(calls)}", "-o", str(log)):
        running.go()
    assert running.wait().code == 0
    counted: Counter[str] = Counter()
    points = []
    for line in log.read_text().splitlines():
        if call := CALL.match(line):
            counted[call[1]] += 1
            if str(out) in line and not CHANGES_NOTHING.match(line):
                points.append((call[1], counted[call[1]]))
    return points
