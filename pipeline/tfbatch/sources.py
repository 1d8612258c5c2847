"""Input files, on this machine or in an object store: found by their names, opened, known again.

An address (`s3://bucket/day=1/in.parquet`) is read through pyarrow's own file systems, with the
credentials that its SDKs find: variables, profile files, the machine's or the pod's role.
"""

import errno
import glob
import hashlib
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from tfbatch.errors import BadInput, NoInput, TfbatchError, TryAgain, UsageError, first_line

STORES = ("s3", "gs", "az", "abfs", "abfss")
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
WILDCARD = re.compile(r"[*?[]")
BUSY = "NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|THROTTLING|SLOW_DOWN|REQUEST_TIMEOUT"
UNREACHABLE = re.compile(rf"AWS Error ({BUSY})\b|curlCode: \d|Status\(UNAVAILABLE")  # as the SDKs have it
SHORT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)  # of memory, open files, processes
RECOVERED = "lost+found"  # at the root of a disk, for root alone
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
    path = local_path(text)
    folders: list[PurePath] = [match.resolve() for match in _matches(path) if match.is_dir()]
    if "**" in path:
        folders.append(Path(path[: path.index("**")]).resolve())
    return folders


def hive_folders(source: Source) -> PurePath:
    """The folders `day=2026-01-31` that a file lies in, however it was named."""
    path = os.path.abspath(source.path) if source.is_local else source.path  # noqa: PTH100 -- a link stays one
    return PurePath(*(folder for folder in PurePath(path).parent.parts if "=" in folder))


def is_data(relative: PurePath) -> bool:
    """Names that begin with _ or . are bookkeeping, as Hive and Spark have it."""
    return not any(name.startswith(("_", ".")) for name in relative.parts)


def _local(text: str) -> list[Source]:
    matches = _matches(text)
    files = [file for match in matches for file in _files_below(match)]
    if not files:
        raise _nothing_in(text, is_there=bool(matches))
    return [Source(name=str(file), path=str(file), filesystem=LOCAL) for file in files]


def _matches(text: str) -> list[Path]:
    """The file or folder of this name, or those that match it as a pattern."""
    if Path(text).exists():
        return [Path(text)]
    return [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 -- may be absolute


def _files_below(path: Path) -> list[Path]:
    """A file itself, or a folder's Parquet files at any depth, in order of name. Links are followed, each file is
    found once, and by its own name rather than a link's: that says which Hive folder its rows are of."""
    if path.is_file():
        return [path]
    found: dict[Path, Path] = {}
    for file in sorted(_walked(path), key=Path.is_symlink):
        if file.suffix == ".parquet" and is_data(PurePath(file.name)) and file.is_file():
            found.setdefault(file.resolve(), file)
    return sorted(found.values())


def _walked(path: Path) -> Iterator[Path]:
    """What is no folder below one, then below those that links lead to; none is walked twice, nor one above it."""
    seen: set[Path] = set()
    tops = deque([path])
    while tops:
        top = tops.popleft()
        if top != path and path.resolve().is_relative_to(top.resolve()):
            continue
        for folder, names, files in os.walk(top, onerror=_refuse):
            here = Path(folder)
            if (real := here.resolve()) in seen:
                names.clear()
                continue
            seen.add(real)
            names[:] = sorted(name for name in names if is_data(PurePath(name)) and name != RECOVERED)
            tops += [here / name for name in names if (here / name).is_symlink()]
            yield from (here / name for name in files)


def _refuse(error: OSError) -> None:
    """What cannot be listed is not empty."""
    raise error


def _stored(text: str) -> list[Source]:
    """The files of an address: itself, those below it, or those that match it."""
    filesystem, root, path = open_store(text)
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        paths = [path]
    elif WILDCARD.search(path):
        paths = [found for found in _listed(filesystem, _fixed_part(path)) if _pattern(path).fullmatch(found)]
    else:
        below = (found for found in _listed(filesystem, path) if found.endswith(".parquet"))
        paths = [found for found in below if is_data(PurePosixPath(found).relative_to(path))]
    if not paths:
        raise _nothing_in(text, is_there=info.type != fs.FileType.NotFound)
    begin = "/".join(text.split("/", 3)[:3])
    return [
        Source(name=f"{begin}{found.removeprefix(root)}", path=found, filesystem=filesystem) for found in sorted(paths)
    ]


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


def _nothing_in(text: str, *, is_there: bool) -> NoInput:
    return NoInput(f"input {text} {'holds no .parquet file' if is_there else 'does not exist or matches nothing'}")
