"""Names of files and folders, on this machine or in an object store."""

import re
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from tfbatch.errors import UsageError

STORES = ("s3", "gs", "az", "abfs", "abfss")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
WILDCARD = re.compile(r"[*?[]")
HIDDEN = ("_", ".")  # begin the names of bookkeeping, as Hive and Spark have it


def local_path(text: str) -> str:
    """A `file://` address as the path it names; all else as it is."""
    return unquote(text.removeprefix("file://")) if text.startswith("file:///") else text


def scheme_of(text: str) -> str | None:
    """`s3` of `s3://bucket/name`; None for a path of this machine.

    Raises:
        UsageError: an address of a kind that is not read or written.
    """
    match = ADDRESS.fullmatch(local_path(text))
    if match is None:
        return None
    if match[1] not in STORES:
        raise UsageError(f"{text}: of addresses {', '.join(f'{name}://' for name in (*STORES, 'file'))} are known")
    return match[1]


def place_of(text: str) -> PurePath:
    """A name to compare with others: an absolute path, or an address as a path that begins with its scheme."""
    return Path(local_path(text)).resolve() if scheme_of(text) is None else PurePosixPath(text)


def is_data(relative: PurePath) -> bool:
    """Whether nothing on a path is hidden."""
    return not any(name.startswith(HIDDEN) for name in relative.parts)


def is_text(name: str) -> bool:
    """Whether a name is UTF-8; the system takes any bytes."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)
