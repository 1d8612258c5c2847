"""Input files, on this machine or in an object store: found by their names, opened, known again."""

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
from pyarrow import fs

from tfbatch.errors import BadInput, NoInput, TfbatchError, TryAgain, first_line
from tfbatch.inputs.addresses import WILDCARD, is_text, local_path, place_of, scheme_of
from tfbatch.inputs.local_files import files_of, matches, real_folders
from tfbatch.inputs.stored_files import files_at, open_store

BUSY = "NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|THROTTLING|SLOW_DOWN|REQUEST_TIMEOUT"
UNREACHABLE = re.compile(rf"AWS Error ({BUSY})\b|curlCode: \d|Status\(UNAVAILABLE")  # as the SDKs have it
SHORT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)  # of memory, open files, processes
LOCAL = fs.LocalFileSystem()  # one for all files, and for those that came from another process


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file to read: `path` in a file system; `name` is what messages and records call it."""

    name: str
    path: str
    filesystem: fs.FileSystem

    def __str__(self) -> str:
        return self.name

    @property
    def is_local(self) -> bool:
        return bool(self.filesystem == LOCAL)

    @property
    def place(self) -> PurePath:
        """Where it is, in the form of `place_of`."""
        return place_of(self.name)

    def open(self) -> pa.NativeFile:
        """The file for reading at any place in it; the caller closes it."""
        return self.filesystem.open_input_file(self.path)

    def identity(self) -> str:
        """Eight hex digits that change when the file does: size, time, inode where there is one, footer.

        Raises:
            OSError: it is not there or cannot be read.
        """
        with self.open() as opened:
            return self.identity_of(opened)

    def identity_of(self, opened: pa.NativeFile) -> str:
        """The same of the file that is open: where another was put in its place meanwhile, it is that of neither."""
        info = self.filesystem.get_file_info(self.path)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(2, "No such file or directory", self.name)
        inode = Path(self.path).stat().st_ino if self.is_local else ""
        size = opened.size()
        opened.seek(max(size - 8, 0))
        length = int.from_bytes(opened.read(4), "little")
        opened.seek(max(size - 8 - length, 0))
        footer = opened.read()
        facts = f"{size} {info.mtime_ns} {inode} ".encode()
        return hashlib.sha256(facts + footer).hexdigest()[:8]


def unreadable(source: Source, what: str, error: Exception) -> TfbatchError:
    """The error of a file that cannot be read: its own fault, or for now that of the way to it or of this machine."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORT:
        return TryAgain(
            f"{source} {what}: {first_line(error)}; fewer --threads take less, and the same command goes on"
        )
    if not source.is_local and isinstance(error, OSError) and UNREACHABLE.search(str(error)):
        return TryAgain(f"{source} cannot be reached: {first_line(error)}; the same command goes on from there")
    return BadInput(f"{source} {what}: {first_line(error)}")


def find_sources(inputs: tuple[str, ...]) -> list[Source]:
    """Each input file once: as given, what is in folders and patterns sorted.

    Raises:
        NoInput: a path, address or pattern that gives none.
        TryAgain: an object store is not reached.
        UsageError: an address of an unknown kind.
    """
    found: dict[PurePath, Source] = {}
    for text in inputs:
        try:
            sources = _stored(text) if scheme_of(text) else _local(local_path(text))
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            if (name := getattr(error, "filename", None)) not in (None, text):
                reason = f"{name}: {reason}"
            if scheme_of(text) and isinstance(error, OSError) and UNREACHABLE.search(str(error)):
                raise TryAgain(f"input {text} cannot be reached: {reason}") from error
            raise NoInput(f"input {text} cannot be looked up: {reason}") from error
        for source in sources:
            found.setdefault(source.place, source)
    return list(found.values())


def input_folders(text: str) -> list[PurePath]:
    """Places all of whose files an input takes in: folders, itself or matched, and where ** begins."""
    if scheme_of(text) is not None:
        return [place_of(text[: match.start()] if (match := WILDCARD.search(text)) else text)]
    return list(real_folders(local_path(text)))


def hive_folders(source: Source) -> PurePath:
    """The folders `day=2026-01-31` that a file lies in, however it was named."""
    path = os.path.abspath(source.path) if source.is_local else source.path  # noqa: PTH100 -- a link stays one
    return PurePath(*(folder for folder in PurePath(path).parent.parts if "=" in folder))


def _local(text: str) -> list[Source]:
    found = matches(text)
    if pipes := [path for path in found if path.exists() and not (path.is_file() or path.is_dir())]:
        raise NoInput(f"input {pipes[0]} is no file: Parquet is read from its end; save it to a file first")
    files = files_of(found)
    if not files:
        raise _nothing_in(text, is_there=bool(found))
    if unnamed := [ascii(str(file)) for file in files if not is_text(str(file))]:
        raise NoInput(f"input {unnamed[0]}: a name that is not UTF-8 can be recorded nowhere; give it another")
    return [Source(name=str(file), path=str(file), filesystem=LOCAL) for file in files]


def _stored(text: str) -> list[Source]:
    filesystem, root, path = open_store(text)
    info = filesystem.get_file_info(path)
    files = [path] if info.type == fs.FileType.File else files_at(filesystem, path)
    if not files:
        raise _nothing_in(text, is_there=info.type != fs.FileType.NotFound)
    begin = "/".join(text.split("/", 3)[:3])
    return [Source(name=f"{begin}{file.removeprefix(root)}", path=file, filesystem=filesystem) for file in files]


def _nothing_in(text: str, *, is_there: bool) -> NoInput:
    if text == "-":
        return NoInput("input - would be standard input: Parquet is read from its end; save it to a file first")
    return NoInput(f"input {text} {'holds no .parquet file' if is_there else 'does not exist or matches nothing'}")
