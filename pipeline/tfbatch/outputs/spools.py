"""Folders of this machine in which the parts of an output in an object store are made, in a place that all users
write to. Each process has its own."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tfbatch.host.durable import is_at

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def new_spool(address: str) -> Path:
    """A name for a folder of this machine in which parts of an output are made, that no other process has."""
    return Path(tempfile.gettempdir()) / f"tfbatch-{os.getuid()}-{digest(address)}-{uuid4().hex[:8]}"


def make_spool(spool: Path) -> int:
    """Make such a folder; what is returned keeps it from being removed as long as it is open."""
    while True:
        spool.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # taken for one that is left, before it was held
            held = os.open(spool, FOLDER)
            fcntl.flock(held, fcntl.LOCK_EX)
            if is_at(held, spool):
                return held
            os.close(held)


def remove_left(address: str) -> None:
    """Remove the folders that processes which are no more have left; no link is followed, nobody else's is touched."""
    spool = new_spool(address)
    for left in spool.parent.glob(f"{spool.name[:-8]}*"):
        with suppress(OSError):  # another user's, a link, in use or gone
            held = os.open(left, FOLDER)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(held)


def digest(address: str) -> str:
    """An address as sixteen hex digits."""
    return hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
