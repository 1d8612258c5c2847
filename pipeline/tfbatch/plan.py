"""Input files to parts, from footers only: no row is read."""

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq

from tfbatch.errors import BadInput, NoInput, first_line


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A Parquet file as its footer describes it.

    `folder` is where its parts go below the output: the Hive folders (`day=2026-01-31`) that it
    lies in. `identity` changes with the file: its size, time, inode and footer.
    """

    path: Path
    folder: PurePath
    rows: int
    schema: pa.Schema
    identity: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows `first` to `stop` (exclusive) of one input file: what is written and committed as one."""

    file: int
    first: int
    stop: int
    folder: PurePath
    identity: str

    @property
    def rows(self) -> int:
        return self.stop - self.first

    def name(self, fingerprint: str) -> str:
        """The output file's path below the output folder."""
        last = max(self.stop - 1, self.first)
        stem = f"part-{self.file:05d}-{self.first:010d}-{last:010d}-{self.identity}-{fingerprint}"
        return str(self.folder / f"{stem}.parquet")


@dataclass(frozen=True, kw_only=True)
class Plan:
    files: list[InputFile]
    parts: list[Part]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def schema(self) -> pa.Schema:
        return self.files[0].schema


def make_plan(inputs: tuple[str, ...], *, rows_per_part: int, limit: int | None) -> Plan:
    """Read the footers of all inputs and cut their rows into parts.

    Raises:
        NoInput: a path that is not there, or a folder or pattern that holds no Parquet file.
        BadInput: a file that is not Parquet, or whose columns differ from the first one's.
    """
    files = [open_input(path, folder) for path, folder in find_files(inputs)]
    for file in files[1:]:
        if not file.schema.equals(files[0].schema):
            raise BadInput(
                f"{file.path} has other columns than {files[0].path}: {difference(files[0].schema, file.schema)}. "
                f"Files of one job have equal columns; run them as separate jobs."
            )
    return Plan(files=files, parts=list(cut_parts(files, rows_per_part, limit)))


def difference(first: pa.Schema, second: pa.Schema) -> str:
    """The first column in which two schemas differ, in words."""
    for name in dict.fromkeys([*first.names, *second.names]):
        here, there = ([field.type for field in schema if field.name == name] for schema in (first, second))
        if here != there:
            kinds = [" and ".join(map(str, kind)) or "missing" for kind in (here, there)]
            return f"{name} is {kinds[0]} there, {kinds[1]} here"
    return "their order or nullability differs"


def cut_parts(files: list[InputFile], rows_per_part: int, limit: int | None) -> Iterator[Part]:
    """Parts of all files in order; a file without rows is one part without rows."""
    left = limit
    for index, file in enumerate(files):
        rows = file.rows if left is None else min(file.rows, left)
        for first in range(0, max(rows, 1), rows_per_part):
            stop = min(first + rows_per_part, rows)
            yield Part(file=index, first=first, stop=stop, folder=file.folder, identity=file.identity)
        if left is not None:
            left -= rows
            if left == 0:
                return


def find_files(inputs: tuple[str, ...]) -> list[tuple[Path, PurePath]]:
    """Each input file once, with its Hive folders: as given, what is in folders and patterns sorted.

    Raises:
        NoInput: a path or pattern that gives none.
    """
    found: dict[Path, tuple[Path, PurePath]] = {}
    for text in inputs:
        try:
            matches = find_matches(text)
            files = [file for match in matches for file in files_below(match)]
        except OSError as error:
            raise NoInput(f"input {text} cannot be looked up: {error.strerror}") from error
        if not files:
            what = "holds no .parquet file" if matches else "does not exist or matches nothing"
            raise NoInput(f"input {text} {what}")
        for file in files:
            hive = [folder for folder in file.parent.parts if "=" in folder]
            found.setdefault(file.resolve(), (file, PurePath(*hive)))
    return list(found.values())


def find_matches(text: str) -> list[Path]:
    """The file or folder of this name, or those that match it as a pattern."""
    if Path(text).exists():
        return [Path(text)]
    return [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207 -- may be absolute


def files_below(path: Path) -> list[Path]:
    """A file itself, or a folder's Parquet files at any depth, in order of name."""
    if path.is_file():
        return [path]
    return [file for file in sorted(path.rglob("*.parquet")) if file.is_file() and is_data(file.relative_to(path))]


def input_folders(text: str) -> list[Path]:
    """Folders all of whose files an input takes in: itself, those it matches, where ** begins."""
    folders = [match for match in find_matches(text) if match.is_dir()]
    if "**" in text:
        folders.append(Path(text[: text.index("**")]))
    return folders


def is_data(relative: PurePath) -> bool:
    """Names that begin with _ or . are bookkeeping, as Hive and Spark have it."""
    return not any(name.startswith(("_", ".")) for name in relative.parts)


def open_input(path: Path, folder: PurePath) -> InputFile:
    """Read one footer.

    Raises:
        BadInput: the file is not readable Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            _ = schema.names  # which are decoded when they are asked for
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last of a column's name
        raise BadInput(f"{path} is not a readable Parquet file: {first_line(error)}") from error
    return InputFile(path=path, folder=folder, rows=rows, schema=schema, identity=input_identity(path))


def input_identity(path: Path) -> str:
    """Eight hex digits that change when the file does: size, time, inode, footer."""
    status = path.stat()
    with path.open("rb") as file:
        file.seek(max(status.st_size - 8, 0))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(status.st_size - 8 - length, 0))
        footer = file.read()
    facts = f"{status.st_size} {status.st_mtime_ns} {status.st_ino} ".encode()
    return hashlib.sha256(facts + footer).hexdigest()[:8]
