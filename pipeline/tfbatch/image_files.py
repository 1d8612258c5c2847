"""Pictures in files of their own, a folder for each part: there whole or not at all, as parts are.

    OUT/images/<part>/<row>.<format>             of the first column of pictures
    OUT/images/<part>/<row>-<column>.<format>    of the others

`row` is counted from the start of the input file, in ten digits: never a name from the data.
"""

import ctypes
import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfbatch.bundle import sha256
from tfbatch.claim import IMAGES
from tfbatch.writer import sync_folder


@dataclass(frozen=True, kw_only=True)
class ImageSink:
    """Columns of pictures (structs of `bytes` and `path`), each with what its files' names end in
    after the row, and whether their bytes stay in the column too (`--images both`)."""

    endings: dict[str, str]
    in_column_too: bool


class ImageFiles:
    """The pictures of one part, under a temporary name until `commit`."""

    def __init__(self, sink: ImageSink, root: Path, temporary: Path, part: str) -> None:
        self.folder = Path(IMAGES) / part
        self._sink = sink
        self._root = root
        self._temporary = temporary / f"{part}.{IMAGES}"
        self._temporary.mkdir()

    def take_out(self, table: pa.Table, first: int, schema: pa.Schema) -> pa.Table:
        """Write the pictures of rows from `first` on, and put their paths below the output folder
        in the place of their bytes, as the schema has it."""
        for name, ending in self._sink.endings.items():
            cells = table.column(name).combine_chunks()
            contents = cells.field("bytes")
            paths = pa.array(
                [self._write(content, f"{row:010d}{ending}") for row, content in enumerate(contents, start=first)],
                pa.string(),
            )
            field = schema.field(name)
            if self._sink.in_column_too:
                paths = pa.StructArray.from_arrays([contents, paths], fields=list(field.type), mask=cells.is_null())
            table = table.set_column(table.schema.get_field_index(name), field, paths)
        return table

    def commit(self) -> dict[str, Any]:
        """Give the folder its name, in the place of what a crash left there.

        Returns:
            What `are_there` needs to know of it.
        """
        record = {"folder": str(self.folder), **describe(self._temporary)}
        sync_files(self._temporary)
        final = self._root / self.folder
        final.parent.mkdir(exist_ok=True)
        left = self._temporary.with_suffix(".left")
        if final.exists():
            final.rename(left)  # removed where it is, it would be there in part for a while
        self._temporary.rename(final)
        sync_folder(final.parent)
        shutil.rmtree(left, ignore_errors=True)
        return record

    def drop(self) -> None:
        """Forget the pictures."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _write(self, content: pa.Scalar, name: str) -> str | None:
        """One picture to its file, where there is one; its path below the output folder."""
        if not content.is_valid:
            return None
        (self._temporary / name).write_bytes(content.as_buffer())
        return str(self.folder / name)


def describe(folder: Path) -> dict[str, Any]:
    """How many files a folder holds, and one SHA-256 of all their names and contents."""
    digest = hashlib.sha256()
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        digest.update(f"{name} {sha256(folder / name)}\n".encode())
    return {"files": len(names), "sha256": digest.hexdigest()}


def are_there(root: Path, record: dict[str, Any], *, verify: bool) -> bool:
    """Whether the pictures of a part are all below a root; with `verify`, byte for byte."""
    folder = root / record["folder"]
    if verify:
        return record == {"folder": record["folder"], **describe(folder)}
    return sum(1 for _ in folder.iterdir()) == int(record["files"])


def sync_files(folder: Path) -> None:
    """Make a folder and all files in it durable, at one go where the system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        whole_system = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if whole_system is None:
            os.sync()
        elif whole_system(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)
