"""SHA-256 of files. A large one's can be found before it is asked for, while other things are imported; one
that is written has its own when its last byte is there."""

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 16 << 20  # bytes: smaller ones take turns with imports more often

State = tuple[int, ...]

_begun: dict[Path, Future[tuple[State, str] | None]] = {}
_hashed: dict[Path, State] = {}  # what was at a path when its hash was last asked for


class HashedFile(io.BufferedWriter):
    """A file that is written from its beginning to its end, and its SHA-256 with it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(io.FileIO(descriptor, "wb"))
        self._found = hashlib.sha256()

    def write(self, data: Any) -> int:
        """Add bytes."""
        self._found.update(data)
        return super().write(data)

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of all that was added."""
        return self._found.hexdigest()


def sha256(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """The hex SHA-256 of a file, read in blocks; `beat` is called after each."""
    with path.open("rb", buffering=0) as file:
        return _sha256(file, beat)


def keep_sha256(path: Path) -> None:
    """Hash a file for the one who will ask `kept_sha256` for it, who waits where this is not over yet."""
    future = _begun[path] = Future()
    try:
        with path.open("rb", buffering=0) as file:
            before, digest = state_of(os.fstat(file.fileno())), _sha256(file)
            future.set_result((before, digest) if before == state_of(os.fstat(file.fileno())) else None)
    except BaseException:
        future.set_result(None)  # who asks finds out himself
        raise


def kept_sha256(path: Path) -> str:
    """The hex SHA-256 of a file: what was kept of it, once, and where it is still that file and as it was. That this
    one was hashed is kept for `is_as_hashed`."""
    future = _begun.pop(path, None)
    state = _hashed[path] = state_of(path.stat())
    if future is not None and (kept := future.result()) is not None and kept[0] == state:
        return kept[1]
    return sha256(path)


def is_as_hashed(path: Path, state: State) -> bool:
    """Whether this is the state that a file was in when `kept_sha256` was asked for it, or it never was."""
    return _hashed.get(path, state) == state


def state_of(status: os.stat_result) -> State:
    """What tells a file from another, and from itself once it has been written to."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _sha256(file: BinaryIO, beat: Callable[[], None] = lambda: None) -> str:
    """All into the same memory: the system clears what is new, which takes as long as hashing it."""
    found = hashlib.sha256()
    block = memoryview(bytearray(min(BLOCK, os.fstat(file.fileno()).st_size or 1)))
    while size := file.readinto(block):  # type: ignore[attr-defined]
        found.update(block[:size])
        beat()
    return found.hexdigest()
