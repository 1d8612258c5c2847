"""What outlives a crash: small files that are there whole or not at all, and names in folders; and whether a name is
still that of what it was."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC  # a file that was not there


def to_json(content: dict[str, Any]) -> str:
    """The form of all small files that tfbatch keeps beside an output."""
    return json.dumps(content, indent=1) + "\n"


def replace_file(path: Path, text: str, *, spool: Path) -> None:
    """Put a small file in the place of what is there, whole or not at all, and sync it.

    It is written in the spool, a folder of the same disk that whoever is killed leaves it in.
    """
    temporary = spool / spooled_name(path)
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, NEW, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def spooled_name(path: Path) -> str:
    """What a small file is called while it is written."""
    return f".{path.name}.{os.getpid()}"


def make_folder(path: Path) -> None:
    """Make a folder and those it lies in, and make their names durable."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False
