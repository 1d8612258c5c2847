"""Pictures in files of their own, a folder for each part: there whole or not at all, as parts are.

    OUT/_images/<part>/<row>.<format>            of the first column of pictures
    OUT/_images/<part>/<row>-<column>.<format>   of the others

`row` is counted from the start of the input file, in ten digits: never a name from the data.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from tfbatch.host.hashes import sha256
from tfbatch.outputs.claim import IMAGES
from tfbatch.outputs.storage import Storage


@dataclass(frozen=True, kw_only=True)
class ImageSink:
    """Columns of pictures (structs of `bytes` and `path`), each with what its files' names end in
    after the row, and whether their bytes stay in the column too (`--images both`)."""

    endings: dict[str, str]
    in_column_too: bool


class ImageFiles:
    """The pictures of one part, in the spool until `commit`."""

    def __init__(self, sink: ImageSink, storage: Storage, part: str) -> None:
        self.folder = f"{IMAGES}/{part}"
        self._sink = sink
        self._storage = storage
        self._temporary = storage.spool / f"{part}.{IMAGES}"
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
        hashes = {path.name: sha256(path, self._storage.beat) for path in self._temporary.iterdir()}
        self._storage.publish_folder(self._temporary, self.folder)
        return {"folder": self.folder, "files": len(hashes), "sha256": hash_of(hashes)}

    def drop(self) -> None:
        """Forget the pictures."""
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _write(self, content: pa.Scalar, name: str) -> str | None:
        """One picture to its file, where there is one; its path below the output folder."""
        if not content.is_valid:
            return None
        (self._temporary / name).write_bytes(content.as_buffer())
        return f"{self.folder}/{name}"


def are_there(storage: Storage, record: dict[str, Any], *, verify: bool) -> bool:
    """Whether the pictures of a part are all in a storage; with `verify`, byte for byte."""
    names = list(storage.files(record["folder"]))
    if len(names) != record["files"]:
        return False
    return not verify or hash_of({PurePath(name).name: storage.sha256(name) for name in names}) == record["sha256"]


def hash_of(hashes: dict[str, str]) -> str:
    """One SHA-256 of the names of files and their own."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
