"""Input files in object stores, by an address or a pattern.

Stores are read through pyarrow's own file systems, with the credentials that their SDKs find: variables, profile
files, the machine's or the pod's role.
"""

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from pyarrow import fs

from tfbatch.errors import UsageError
from tfbatch.inputs.addresses import WILDCARD, is_data


def open_store(text: str) -> tuple[fs.FileSystem, str, str]:
    """The file system of an address, its bucket in it, and the path of the address, taken as it is:
    names in a bucket may hold what would have to be escaped in a URL."""
    scheme, _, bucket, *rest = text.split("/", 3)
    if scheme == "az:":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if not account:
            raise UsageError(f"{text}: AZURE_STORAGE_ACCOUNT_NAME names the account, and it is not set")
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
        filesystem, root = fs.AzureFileSystem(account_name=account, account_key=key), bucket
    else:
        filesystem, root = fs.FileSystem.from_uri(f"{scheme}//{bucket}")
    return filesystem, root, "/".join([root, *rest]).rstrip("/")


def files_at(filesystem: fs.FileSystem, path: str) -> list[str]:
    """The files that match a path, or a folder's Parquet files at any depth, in order of name."""
    if WILDCARD.search(path):
        return sorted(found for found in _listed(filesystem, _fixed_part(path)) if _pattern(path).fullmatch(found))
    below = (found for found in _listed(filesystem, path) if found.lower().endswith(".parquet"))
    return sorted(found for found in below if is_data(PurePosixPath(found).relative_to(path)))


def _listed(filesystem: fs.FileSystem, folder: str) -> Iterator[str]:
    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    return (info.path for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File)


def _fixed_part(text: str) -> str:
    """The folders of a pattern that hold no wildcard; all of a text that has none."""
    match = WILDCARD.search(text)
    return text if match is None else text[: text.rindex("/", 0, match.start())]


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of the shell's as one of Python's: ** is any folders, * and ? stay within a name."""
    steps = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", text)
    literal = (piece if piece.startswith("[") else re.escape(piece) for piece in pieces)
    return re.compile("".join(steps.get(piece, other) for piece, other in zip(pieces, literal, strict=True)))
